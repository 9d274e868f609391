from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactsdk.errors import ConfigurationError
from impactsdk.factor import Place
from impactsdk.factors.places import PROVIDERS, detect, place_of
from impactsdk.factors.rows import rows

grid_codes = st.sampled_from([row["code"] for row in rows("grid_intensity")])
regions = st.sampled_from([(row["provider"], row["region"], row["iso3"]) for row in rows("cloud_regions")])
casings = st.sampled_from([str.lower, str.upper, str.title, lambda text: f"  {text}\n"])

PARIS = Place(
    "aws:eu-west-3", "AWS Europe (Paris)", "FR", "FRA", provider="aws", cloud_region="eu-west-3", set_by="environment"
)


def code(text: str) -> str:
    return place_of(text).code


# --- what a person writes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["FR", "fr", "FRA", "fra", "France", "FRANCE", " France "])
def test_a_country_goes_by_code_or_name_in_any_case(text: str) -> None:
    assert place_of(text) == Place("FR", "France", "FR", "FRA")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("UK", "GB"),
        ("EU", "EU27"),
        ("eu27", "EU27"),
        ("World", "WORLD"),
        ("north america", "NORTH_AMERICA"),
        ("Côte d\u2019Ivoire", "CI"),
        ("Réunion", "RE"),
        ("Türkiye", "TR"),
        ("Georgia", "GE"),
        ("CA", "CA"),
        ("US-CA", "US-CA"),
        ("us-ca", "US-CA"),
    ],
)
def test_other_ways_to_write_a_place(text: str, meant: str) -> None:
    assert code(text) == meant


@pytest.mark.parametrize("text", ["US-EGRID-CAMX", "us-egrid-camx", "CAMX", "camx", "egrid:CAMX"])
def test_an_egrid_subregion_goes_by_its_short_name_too(text: str) -> None:
    assert place_of(text) == Place("US-EGRID-CAMX", "eGRID WECC California", "US", "USA", egrid="US-EGRID-CAMX")


def test_a_state_of_the_usa_is_in_the_usa() -> None:
    assert place_of("US-CA") == Place("US-CA", "California, United States", "US", "USA", state="US-CA")


def test_a_cloud_region_has_its_country_and_its_egrid_subregion() -> None:
    place = place_of("aws:us-east-1")
    assert (place.iso2, place.iso3, place.egrid) == ("US", "USA", "US-EGRID-SRVC")
    assert (place.provider, place.cloud_region, place.set_by) == ("aws", "us-east-1", "user")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("eu-west-3", "aws:eu-west-3"),
        ("europe-west9", "gcp:europe-west9"),
        ("francecentral", "azure:francecentral"),
        ("West Europe", "azure:westeurope"),
        ("azure:France Central", "azure:francecentral"),
        ("AWS:EU-WEST-3", "aws:eu-west-3"),
    ],
)
def test_a_region_needs_no_provider_and_no_exact_case(text: str, meant: str) -> None:
    assert code(text) == meant


def test_a_hyphen_tells_two_clouds_regions_apart() -> None:
    assert (code("us-east-1"), code("us-east1")) == ("aws:us-east-1", "gcp:us-east1")


@given(grid_codes, casings)
def test_every_code_of_the_grid_table_resolves(written: str, casing: object) -> None:
    place = place_of(casing(written))  # type: ignore[operator]
    assert written in (place.iso3, place.code)


def test_every_name_and_code_of_every_table_resolves_to_its_own_row() -> None:
    for row in rows("grid_intensity"):
        assert {code(row[column]) for column in ("code", "name", "iso2") if row[column]} == {row["iso2"] or row["code"]}
    for row in rows("grid_intensity_us_egrid"):
        assert code(row["code"]) == code("egrid:" + row["code"].removeprefix("US-EGRID-")) == row["code"]
    for row in rows("electricity_price_us_state"):
        assert place_of(row["code"]).state == row["code"]
    for table in ("water_intensity", "electricity_price"):
        for row in rows(table):
            assert row["iso3"] in (place_of(row["iso3"] or row["code"]).iso3, "")


@given(regions)
def test_every_cloud_region_resolves_with_and_without_its_provider(region: tuple[str, str, str]) -> None:
    provider, name, _ = region
    place = place_of(f"{provider}:{name}")
    assert place == place_of(name)
    assert (place.provider, place.cloud_region, place.iso3) == region
    assert place.name.startswith(PROVIDERS[provider])


@given(grid_codes | regions.map(lambda region: f"{region[0]}:{region[1]}"))
def test_the_code_of_a_place_is_a_name_of_it(written: str) -> None:
    place = place_of(written)
    assert place_of(place.code) == place


# --- what a person gets wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("Frnace", "France (FR)"),
        ("Untied States", "United States (US)"),
        ("California", "California (US-CA)"),
        ("aws:eu-west-9", "AWS Europe (Paris) (aws:eu-west-3)"),
        ("eu-west-3a", "AWS Europe (Paris) (aws:eu-west-3)"),
        ("US-EGRID-CAMP", "eGRID WECC California (US-EGRID-CAMX)"),
    ],
)
def test_a_typo_is_told_the_nearest_names(text: str, suggestion: str) -> None:
    with pytest.raises(ConfigurationError, match="is no place that is known here; did you mean") as raised:
        place_of(text)
    assert repr(text) in str(raised.value)
    assert suggestion in str(raised.value)


@pytest.mark.parametrize("text", ["ZZ", "CAF", "日本FR", "aws", "aws:", ":", "egrid:", "x" * 10_000])
def test_what_no_table_has_is_an_error_of_a_bounded_length(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no place that is known here") as raised:
        place_of(text)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("value", ["", "  ", None, 33, b"FR", ["FR"]])
def test_what_is_no_text_is_an_error_too(value: object) -> None:
    with pytest.raises(ConfigurationError, match="a place is text such as FR"):
        place_of(value)  # type: ignore[arg-type]


@given(st.text())
def test_any_text_is_a_place_or_a_configuration_error(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert isinstance(place_of(text), Place)


# --- what the surroundings say -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "region", "meant"),
    [
        ("aws", "eu-west-3", "aws:eu-west-3"),
        ("azure", "francecentral", "azure:francecentral"),
        ("azure", "France Central", "azure:francecentral"),
        ("gcp", "europe-west9", "gcp:europe-west9"),
    ],
)
def test_the_resource_says_where_it_is(provider: str, region: str, meant: str) -> None:
    place = detect({"cloud.provider": provider, "cloud.region": region}, {})
    assert place is not None
    assert (place.code, place.set_by) == (meant, "resource")


def test_a_region_without_a_provider_will_do_if_only_one_has_it() -> None:
    place = detect({"cloud.region": "eu-west-3"}, {})
    assert place is not None
    assert place.code == "aws:eu-west-3"


@pytest.mark.parametrize(
    "attributes",
    [
        {"cloud.provider": "aws", "cloud.region": "eu-west-99"},
        {"cloud.provider": "alibaba_cloud", "cloud.region": "eu-west-3"},
        {"cloud.provider": "gcp", "cloud.region": "FR"},
        {"cloud.region": "FR"},
        {"cloud.provider": "aws"},
        {"cloud.provider": 1, "cloud.region": ("eu-west-3",)},
        {"cloud.provider": "aws", "cloud.region": ""},
    ],
)
def test_a_resource_that_says_nothing_known_is_no_error(attributes: dict[str, object]) -> None:
    assert detect(attributes, {}) is None


@pytest.mark.parametrize(
    "proof",
    ["AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME", "ECS_CONTAINER_METADATA_URI_V4", "AWS_BATCH_JOB_ID"],
)
@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_aws_is_believed_where_a_variable_proves_it(proof: str, variable: str) -> None:
    assert detect({}, {proof: "x", variable: "eu-west-3"}) == PARIS


def test_the_region_of_a_command_line_on_a_laptop_is_no_evidence() -> None:
    assert detect({}, {"AWS_REGION": "eu-west-3", "AWS_DEFAULT_REGION": "eu-west-3", "AWS_PROFILE": "x"}) is None
    assert detect({}, {"GOOGLE_CLOUD_REGION": "europe-west9", "CLOUD_ML_REGION": "europe-west9"}) is None
    assert detect({}, {"REGION_NAME": "westeurope"}) is None


@pytest.mark.parametrize(
    ("environ", "meant"),
    [
        ({"TRAINING_JOB_ARN": "arn:aws:sagemaker:eu-west-3:123456789012:training-job/x"}, "aws:eu-west-3"),
        ({"WEBSITE_SITE_NAME": "shop", "REGION_NAME": "West Europe"}, "azure:westeurope"),
        ({"CONTAINER_APP_ENV_DNS_SUFFIX": "ashyforest-01234567.eastus.azurecontainerapps.io"}, "azure:eastus"),
        ({"FUNCTION_NAME": "f", "FUNCTION_REGION": "europe-west9"}, "gcp:europe-west9"),
        ({"K_SERVICE": "f", "FUNCTION_REGION": "europe-west9"}, "gcp:europe-west9"),
    ],
)
def test_other_clouds_variables(environ: dict[str, str], meant: str) -> None:
    place = detect({}, environ)
    assert place is not None
    assert (place.code, place.set_by) == (meant, "environment")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"AWS_EXECUTION_ENV": "AWS_ECS_EC2"},
        {"AWS_EXECUTION_ENV": "x", "AWS_REGION": "moon-1"},
        {"TRAINING_JOB_ARN": "nonsense"},
        {"K_SERVICE": "f"},
        {"WEBSITE_SITE_NAME": "shop"},
        {"CONTAINER_APP_ENV_DNS_SUFFIX": "example.com"},
    ],
)
def test_an_environment_without_a_known_region_is_no_error(environ: dict[str, str]) -> None:
    assert detect({}, environ) is None


def test_the_resource_comes_before_the_environment() -> None:
    aws = {"AWS_EXECUTION_ENV": "x", "AWS_REGION": "eu-west-3"}
    place = detect({"cloud.provider": "gcp", "cloud.region": "us-east1"}, aws)
    assert place is not None
    assert place.code == "gcp:us-east1"
    assert detect({"cloud.provider": "gcp", "cloud.region": "moon-1"}, aws) is None
    assert detect({"service.name": "x"}, aws) == PARIS
