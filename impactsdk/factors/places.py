"""Where a machine stands: from a name that a person writes, or from what a cloud says of itself.

What is known is what the tables have: the countries and aggregates of ``grid_intensity``, the subregions of
``grid_intensity_us_egrid``, the states of ``electricity_price_us_state`` and the regions of ``cloud_regions``. A country of
ISO 3166 for which no figure is bundled is no place here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from impactsdk.errors import ConfigurationError
from impactsdk.factor import Place
from impactsdk.factors.rows import Row, rows

__all__ = ["PROVIDERS", "detect", "place_of"]

PROVIDERS: Mapping[str, str] = {"aws": "AWS", "azure": "Azure", "gcp": "Google Cloud"}
"""The clouds whose regions are known, as OpenTelemetry's ``cloud.provider`` calls them, and as people do."""

# What people and other lists write for a code or a name of the tables. Each is folded before it is looked up.
_ALSO = {
    "UK": "GB",
    "Great Britain": "GB",
    "EU": "EU27",
    "European Union": "EU27",
    "United States of America": "US",
    "Czech Republic": "CZ",
    "Türkiye": "TR",
    "Viet Nam": "VN",
    "Korea": "KR",
    "Republic of Korea": "KR",
    "Russian Federation": "RU",
    "The Netherlands": "NL",
    "Ivory Coast": "CI",
    "Cabo Verde": "CV",
    "Timor-Leste": "TL",
}

# Any of these says that the process runs on AWS, each as AWS documents it: Lambda, ECS with Fargate, CodeBuild, CloudShell,
# Batch. AWS_REGION alone says nothing: people set it on their laptops for the command line and the SDKs.
_ON_AWS = (
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_BATCH_JOB_ID",
    "ECS_CONTAINER_METADATA_URI",
    "ECS_CONTAINER_METADATA_URI_V4",
)
_MOST_SUGGESTIONS = 4
_SEPARATORS = re.compile(r"[^\w:-]+|_+")


@dataclass(frozen=True, slots=True)
class _Index:
    """All places by folded code and name, and the bare names of cloud regions, which several providers may share."""

    places: Mapping[str, Place]
    regions: Mapping[str, tuple[Place, ...]]
    suggestions: Mapping[str, str]


def place_of(text: str) -> Place:
    """The place that a person means.

    A country or an aggregate by ISO 3166-1 code (``FR``, ``FRA``; also ``UK``, ``EU``, ``WORLD``) or name (``France``), a US
    state (``US-CA``), a US eGRID subregion (``US-EGRID-CAMX``, ``CAMX``, ``egrid:CAMX``) or a cloud region
    (``aws:eu-west-3``; without the provider if only one has a region of that name). Case, accents and blanks around do not
    matter. ``Georgia`` is the country; the state is ``US-GA``.

    Raises:
        ConfigurationError: There is no such place here; the message names the nearest ones.
    """
    if not isinstance(text, str) or not text.strip():
        raise ConfigurationError(f"a place is text such as FR, US-CA or aws:eu-west-3, not {text!r}")
    index = _index()
    wanted = _folded(text)
    if wanted in index.places:
        return index.places[wanted]
    provider, colon, region = text.partition(":")
    found = _region(_folded(provider), region) if colon else None
    if found is not None:
        return found
    sharing = () if colon else index.regions.get(_region_name(text), ())
    if len(sharing) == 1:
        return sharing[0]
    if sharing:
        codes = " or ".join(place.code for place in sharing)
        raise ConfigurationError(f"{text!r} is a region of more than one cloud: write {codes}")
    raise ConfigurationError(_unknown(text))


def detect(attributes: Mapping[str, object], environ: Mapping[str, str]) -> Place | None:
    """The place that the surroundings tell of; asks no network.

    First ``cloud.provider`` and ``cloud.region`` of an OpenTelemetry resource (``set_by="resource"``), then the variables that
    a cloud sets itself (``set_by="environment"``): ``AWS_REGION`` or ``AWS_DEFAULT_REGION`` where another variable proves that
    this is AWS, the ARN of a SageMaker training job, ``REGION_NAME`` of Azure App Service and Functions, the DNS suffix of
    Azure Container Apps, and ``FUNCTION_REGION`` of the older Google Cloud Functions. Cloud Run, Vertex AI, Azure Machine
    Learning and plain virtual machines name their region only to who asks their metadata server: a resource detector of
    OpenTelemetry, or ``IMPACTSDK_REGION``, has to say it.

    Returns:
        ``None`` if nothing is said, or if the region is not known here.
    """
    provider, region = (attributes.get(name) for name in ("cloud.provider", "cloud.region"))
    if isinstance(region, str) and region.strip():
        if isinstance(provider, str) and provider.strip():
            said = _region(_folded(provider), region)
        else:
            sharing = _index().regions.get(_region_name(region), ())
            said = sharing[0] if len(sharing) == 1 else None
        # Whatever the environment says besides is about something else than the resource.
        return None if said is None else replace(said, set_by="resource")
    for provider, region in _said_by(environ):
        said = _region(provider, region)
        if said is not None:
            return replace(said, set_by="environment")
    return None


def _said_by(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Provider and region as the cloud's own variables have them, best evidence first.

    AWS: Lambda, "Defined runtime environment variables"; ECS, "Task metadata endpoint"; SageMaker, "How SageMaker AI runs your
    training image". Azure: "Environment variables and app settings in App Service"; Container Apps, "Built-in environment
    variables". Google: Cloud Functions (1st gen), "Older runtimes". ``GOOGLE_CLOUD_REGION`` and ``CLOUD_ML_REGION`` are what
    people set for client libraries, so they are no evidence.
    """
    arn = environ.get("TRAINING_JOB_ARN", "").split(":")
    if len(arn) > 4 and arn[0] == "arn" and arn[2] == "sagemaker":
        yield "aws", arn[3]
    if any(environ.get(name) for name in _ON_AWS):
        yield "aws", environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or ""
    if environ.get("WEBSITE_SITE_NAME"):
        yield "azure", environ.get("REGION_NAME", "")
    suffix = environ.get("CONTAINER_APP_ENV_DNS_SUFFIX", "").split(".")
    if len(suffix) > 3 and suffix[-2:] == ["azurecontainerapps", "io"]:
        yield "azure", suffix[-3]
    if environ.get("FUNCTION_NAME") or environ.get("K_SERVICE"):
        yield "gcp", environ.get("FUNCTION_REGION", "")


def _region(provider: str, region: str) -> Place | None:
    return _index().places.get(f"{provider}:{_region_name(region)}")


@cache
def _index() -> _Index:
    places: dict[str, Place] = {}
    suggestions: dict[str, str] = {}
    regions: dict[str, tuple[Place, ...]] = {}

    def add(place: Place, *names: str) -> None:
        for name in map(_folded, (place.code, *names)):
            if places.setdefault(name, place) is place:
                suggestions[name] = f"{place.name} ({place.code})"

    for row in rows("grid_intensity"):
        add(_country(row), row["code"], row["name"])
    for row in rows("grid_intensity_us_egrid"):
        short = row["code"].removeprefix("US-EGRID-")
        place = Place(row["code"], f"eGRID {row['name']}", row["iso2"], row["iso3"], egrid=row["code"])
        add(place, f"egrid:{short}", *([short] if row["kind"] == "egrid_subregion" else []))
    for row in rows("electricity_price_us_state"):
        place = Place(row["code"], f"{row['name']}, United States", "US", "USA", state=row["code"])
        add(place)
        suggestions.setdefault(_folded(row["name"]), f"{row['name']} ({place.code})")
    for row in rows("cloud_regions"):
        place = _cloud_region(row)
        add(place)
        bare = _region_name(row["region"])
        regions[bare] = (*regions.get(bare, ()), place)
        suggestions.setdefault(bare, f"{place.name} ({place.code})")
    for written, meant in _ALSO.items():
        places.setdefault(_folded(written), places[_folded(meant)])
    return _Index(places, regions, suggestions)


def _country(row: Row) -> Place:
    return Place(row["iso2"] or row["code"], row["name"], row["iso2"] or None, row["iso3"] or None)


def _cloud_region(row: Row) -> Place:
    provider, region, grid = row["provider"], row["region"], row["grid_code"]
    return Place(
        f"{provider}:{region}",
        f"{PROVIDERS[provider]} {row['location']}",
        row["iso2"],
        row["iso3"],
        egrid=grid if grid.startswith("US-EGRID-") else None,
        provider=provider,
        cloud_region=region,
    )


def _unknown(text: str) -> str:
    import difflib  # only a mistake needs it

    shown = text.strip()[:80]
    suggestions = _index().suggestions
    near = difflib.get_close_matches(_folded(shown), suggestions, n=2 * _MOST_SUGGESTIONS, cutoff=0.6)
    names = _first_of(suggestions[name] for name in near)
    forms = "write a country (FR), a US state (US-CA), an eGRID subregion (CAMX) or a cloud region (aws:eu-west-3)"
    advice = f"did you mean {' or '.join(names)}?" if names else forms
    return f"{shown!r} is no place that is known here; {advice}"


def _first_of(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))[:_MOST_SUGGESTIONS]


def _folded(text: str) -> str:
    """Lower case without accents; runs of anything but letters, digits, ``:`` and ``-`` are one blank."""
    plain = text.casefold()
    if not plain.isascii():
        plain = "".join(letter for letter in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(letter))
    return _SEPARATORS.sub(" ", plain).strip()


def _region_name(text: str) -> str:
    """A region as providers write it in programs; Azure's name for people, ``West Europe``, comes down to the same."""
    return "".join(text.split()).casefold()
