"""Whose factors hold: the user's, then the providers' in their order, then the tables', else nobody's."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import impactsdk
from impactsdk import ConfigurationError, DegradedWarning, Meter, Settings
from impactsdk.factor import Factor, Kind, Place
from impactsdk.factors.book import _MONEY, _UNITS, Book
from impactsdk.factors.hardware import Hardware
from impactsdk.factors.places import place_of
from impactsdk.factors.rows import rows
from impactsdk.factors.tables import BundledTables
from impactsdk.impact import Use, impact_of
from impactsdk.testing import FakeClock, SimulatedSource

S = 1_000_000_000
NOW_NS = 1_750_000_000 * S
HOUR = Use(3.6e6, 3.6e6, 3.6e6, 3_600.0)
LIFE_H = 4 * 8_760
INSTALLED = "electricity_maps, tables, tariff, uk_carbon_intensity"


def factor(kind: Kind, value: float, place: str | None = None) -> Factor:
    unit = _UNITS.get(kind) or "{USD}" + _MONEY[kind]
    return Factor(kind, value, unit, "test", low=value, high=value, place=place)


class Provider:
    """Says what it is told to say, or calls it."""

    def __init__(
        self, *answers: Any, name: str = "mine", trouble: str | None = None, do: Callable[[], Any] | None = None
    ) -> None:
        self.name, self.trouble = name, trouble
        self.answers: Any = answers
        self._do = do
        self.asked: list[int] = []
        self.closed = False

    def factors(self, *, place: Place | None, unix_ns: int) -> Sequence[Factor]:
        self.asked.append(unix_ns)
        if self._do is not None:
            return self._do()  # type: ignore[no-any-return]
        return self.answers  # type: ignore[no-any-return]

    def close(self) -> None:
        self.closed = True


class Complaints(dict[str, str]):
    """Keeps the first of each key, as a session warns once."""

    def __call__(self, key: str, message: str) -> None:
        self.setdefault(key, message)


def book(*providers: Any, place: str | None = None, said: Complaints | None = None, **settings: Any) -> Book:
    """A book of ``providers`` and of an environment given as ``environ``."""
    loaded = Settings.load(settings.pop("environ", {}), **settings)
    where = None if place is None else place_of(place)
    return Book(loaded, list(providers), where, said if said is not None else Complaints())


def known(of: Book, unix_ns: int = NOW_NS) -> dict[Kind, Factor]:
    return {each.kind: each for each in of.rates(unix_ns).factors}


def grams(of: Book) -> float | None:
    return impact_of(HOUR, of.rates(NOW_NS)).carbon_g


# --- who wins ----------------------------------------------------------------------------------------------------------------


def test_the_user_comes_before_providers_and_these_before_the_tables() -> None:
    tables = BundledTables()
    first = Provider(factor("carbon_intensity", 1), factor("price", 2), name="first")
    second = Provider(factor("carbon_intensity", 10), factor("price", 20), factor("water_intensity", 30), name="second")
    found = known(book(first, second, tables, place="aws:us-east-1", carbon_intensity_g_per_kwh=0.5))
    assert [found[kind].value for kind in ("carbon_intensity", "price", "water_intensity")] == [0.5, 2, 30]  # type: ignore[index]
    assert (found["carbon_intensity"].source, found["pue"].value) == ("user", 1.15)
    assert known(book(second, first, tables))["price"].value == 20


def test_without_providers_only_what_the_user_set_is_known() -> None:
    alone = book(place="FR", factors="none", price_per_kwh=0.2)
    assert set(known(alone)) == {"price"}
    impact = impact_of(HOUR, alone.rates(NOW_NS))
    assert (impact.carbon_g, impact.cost) == (None, pytest.approx(0.2))
    assert "IMPACTSDK_CARBON_INTENSITY_G_PER_KWH" in impact.reasons["carbon_intensity"]
    assert "price" not in impact.reasons


def test_a_reason_is_given_for_what_the_tables_do_not_know_only() -> None:
    reasons = book(BundledTables(), place="FR").rates(NOW_NS).reasons
    assert {"pue", "wue"} <= set(reasons)
    assert not {"carbon_intensity", "price", "water_intensity"} & set(reasons)
    assert "wue" not in book(BundledTables(), place="FR", wue=0.1).rates(NOW_NS).reasons


def test_the_rates_stay_the_same_object_while_nothing_changes() -> None:
    provider = Provider(factor("carbon_intensity", 100))
    of = book(provider)
    first = of.rates(NOW_NS)
    assert of.rates(NOW_NS + S // 2) is first
    assert len(provider.asked) == 1, "it is asked about once a second"
    provider.answers = [factor("carbon_intensity", 100)]
    assert of.rates(NOW_NS + 2 * S) is first
    provider.answers = [factor("carbon_intensity", 101)]
    assert of.rates(NOW_NS + 2 * S + 1) is first
    changed = of.rates(NOW_NS + 4 * S)
    assert changed is not first
    assert of.rates(NOW_NS + 9 * S) is changed
    assert of.rates(NOW_NS - 9 * S) is changed, "a wall clock that is set back"
    assert provider.asked[-1] == NOW_NS - 9 * S


# --- who fails ---------------------------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[], Any]:
    def raise_() -> Any:
        raise error

    return raise_


def halfway() -> Any:
    yield factor("carbon_intensity", 1)
    raise OSError("gone")


@pytest.mark.parametrize(
    "answer",
    [
        raising(ValueError("no")),
        raising(SystemExit(3)),
        raising(ImportError("no module")),
        halfway,
        lambda: None,
        lambda: 5,
        lambda: {"carbon_intensity": 5.0},
        lambda: [("carbon_intensity", 5.0)],
        lambda: [factor("carbon_intensity", float("nan"))],
        lambda: [factor("carbon_intensity", float("inf"))],
        lambda: [Factor("carbon_intensity", 5.0, "", "test", high=float("nan"))],
        lambda: [factor("carbon_intensity", "5")],  # type: ignore[arg-type]
        lambda: [factor("carbon_intensity", None)],  # type: ignore[arg-type]
        lambda: [factor("lifetime", 0.0)],
    ],
)
def test_of_a_provider_that_fails_one_is_told_once_and_the_next_is_used(answer: Callable[[], Any]) -> None:
    said = Complaints()
    bad, good = Provider(do=answer, name="bad"), Provider(factor("carbon_intensity", 7), factor("lifetime", 4), name="good")
    of = book(bad, good, said=said, embodied_kg=1_000)
    assert grams(of) == pytest.approx(7)
    first = of.rates(NOW_NS)
    for seconds in range(2, 20, 2):
        assert of.rates(NOW_NS + seconds * S) is first
    assert len(bad.asked) == 10
    (message,) = said.values()
    assert message.startswith("bad: failed (") and message.endswith("what comes after it is used instead")


def test_of_a_failure_with_ever_new_words_one_is_told_once() -> None:
    said, count = Complaints(), iter(range(99))
    of = book(Provider(do=lambda: raising(ValueError(f"{next(count)} is wrong"))()), said=said)
    for seconds in range(0, 10, 2):
        of.rates(NOW_NS + seconds * S)
    assert list(said.values()) == ["mine: failed (ValueError: 0 is wrong); what comes after it is used instead"]


def test_a_provider_in_trouble_is_told_and_what_it_knows_is_used() -> None:
    said = Complaints()
    troubled = Provider(factor("price", 3), trouble="no answer from the grid: check the key")
    of = book(troubled, Provider(factor("carbon_intensity", 7)), said=said)
    assert (known(of)["price"].value, known(of, NOW_NS + 5 * S)["carbon_intensity"].value) == (3, 7)
    assert list(said.values()) == ["mine: no answer from the grid: check the key"]


def test_a_provider_needs_no_more_than_factors() -> None:
    class Bare:
        def factors(self, **_: Any) -> Sequence[Factor]:
            return [factor("carbon_intensity", 7)]

    said = Complaints()
    of = book(Bare(), said=said)
    assert (grams(of), said) == (pytest.approx(7), {})
    of.close()
    assert ["Bare: could not be closed" in message for message in said.values()] == [True]


def test_all_providers_are_closed_though_one_fails() -> None:
    said, first, second = Complaints(), Provider(), Provider()
    first.close = raising(OSError("stuck"))  # type: ignore[method-assign]
    book(first, second, said=said).close()
    assert second.closed
    assert "OSError" in "".join(said.values())


def test_a_meter_warns_once_and_measures_with_the_tables() -> None:
    clock = FakeClock()
    settings = Settings.load({}, export="none", region="FR")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Meter(
            settings, sources=[SimulatedSource(100.0)], factors=[Provider(do=raising(OSError("no")))], clock=clock
        ) as meter:
            for _ in range(3):
                with meter.measured("x") as region:
                    clock.advance(2.0)
                    clock.advance(0.2)
            impact = region.result().impact
    assert [warning.category for warning in caught] == [DegradedWarning]
    assert next(f.source for f in impact.factors if f.kind == "carbon_intensity").startswith("owid-ember")


def test_a_provider_that_is_slow_to_import_is_waited_for_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "site" / "slow_grid-1.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-grid\nVersion: 1\n")
    (made / "entry_points.txt").write_text("[impactsdk.factors]\nslow_grid = slow_grid:from_settings\n")
    (made.parent / "slow_grid.py").write_text(
        "import time\n"
        "from impactsdk.factor import Factor\n"
        "time.sleep(0.2)\n"
        "class Slow:\n"
        "    name, trouble = 'slow_grid', None\n"
        "    def factors(self, *, place, unix_ns):\n"
        "        return [Factor('carbon_intensity', 7.0, 'g{CO2e}/(kW.h)', 'slow')]\n"
        "    def close(self): pass\n"
        "def from_settings(settings): return Slow()\n"
    )
    monkeypatch.syspath_prepend(made.parent)
    clock = FakeClock()
    settings = Settings.load({}, export="none", factors="slow_grid")
    with Meter(settings, sources=[SimulatedSource(36_000.0)], clock=clock) as meter:
        with meter.measured("x") as region:
            clock.advance(100.0)
        clock.advance(0.2)
        assert region.result().impact.carbon_g == pytest.approx(7.0)


# --- hardware ----------------------------------------------------------------------------------------------------------------

MACHINE = Hardware(
    devices=(factor("embodied", 2.0 * LIFE_H, "gpu:0"), factor("embodied", 8.0 * LIFE_H, "server")),
    lifetime=factor("lifetime", 4, "server"),
    resource_share=factor("resource_share", 0.5, "server"),
)


def embodied(of: Book) -> float | None:
    return impact_of(HOUR, of.rates(NOW_NS)).embodied_g


@pytest.mark.parametrize(
    ("settings", "grams_an_hour"),
    [
        ({}, 2 + 8 * 0.5),
        ({"resource_share": 0.25}, 2 + 8 * 0.25),
        ({"lifetime_years": 2}, 2 * (2 + 8 * 0.5)),
        ({"environ": {"LOCAL_WORLD_SIZE": "4"}}, 2 + 8 * 0.5 / 4),
        ({"environ": {"LOCAL_WORLD_SIZE": "1"}}, 2 + 8 * 0.5),
        ({"environ": {"LOCAL_WORLD_SIZE": "many"}}, 2 + 8 * 0.5),
        ({"environ": {"LOCAL_WORLD_SIZE": "4"}, "resource_share": 0.25}, 2 + 8 * 0.25),
        ({"embodied_kg": LIFE_H / 1000}, 1),
        ({"embodied_kg": LIFE_H / 1000, "environ": {"LOCAL_WORLD_SIZE": "4"}}, 1),
        ({"embodied_kg": LIFE_H / 1000, "resource_share": 0.25}, 0.25),
    ],
)
def test_manufacture_is_the_users_or_the_boards_and_our_share_of_the_server(settings: Any, grams_an_hour: float) -> None:
    of = book(**settings)
    assert embodied(of) is None
    before = of.rates(NOW_NS)
    of.describe(MACHINE)
    assert embodied(of) == pytest.approx(grams_an_hour)
    assert of.rates(NOW_NS) is not before


def test_without_the_tables_there_is_no_rule_of_thumb_for_the_manufacture_either() -> None:
    of = book(factors="none")
    of.describe(MACHINE)
    assert embodied(of) is None
    of = book(factors="none", embodied_kg=LIFE_H / 1000)
    of.describe(MACHINE)
    assert embodied(of) == pytest.approx(1)


def test_the_manufacture_that_a_provider_knows_replaces_the_hardwares() -> None:
    of = book(
        Provider(factor("embodied", 3.0 * LIFE_H, "a"), factor("embodied", 1.0 * LIFE_H, "b")),
        Provider(factor("embodied", 9, "c")),
    )
    of.describe(MACHINE)
    assert embodied(of) == pytest.approx(4)
    assert {each.place for each in of.rates(NOW_NS).factors if each.kind == "embodied"} == {"a", "b"}


# --- where -------------------------------------------------------------------------------------------------------------------


def test_the_facts_are_what_does_not_change() -> None:
    asked = Provider(factor("pue", 9))
    facts = book(asked, BundledTables(), place="aws:us-east-1", wue=0.3).facts()
    where = {"impact.place": "aws:us-east-1", "impact.grid.zone": "US"}
    assert facts == {"impact.pue": 1.15, "impact.wue": 0.3, **where}
    assert asked.asked == []
    assert book(BundledTables()).facts() == {}
    france = {"impact.place": "FR", "impact.grid.zone": "FR"}
    assert book(BundledTables(), place="FR", pue=1.4).facts() == {"impact.pue": 1.4, **france}


@pytest.mark.parametrize(
    "refuse", [lambda given: Meter(Settings.load({}, **given)), lambda given: impactsdk.configure(**given)]
)
def test_a_place_or_provider_that_is_not_known_is_refused_at_once(refuse: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"'Frnace'.* did you mean .*France \(FR\)"):
        refuse({"region": "Frnace"})
    with pytest.raises(ConfigurationError, match=f"no provider of factors 'tabels'; installed are .*{INSTALLED}"):
        refuse({"factors": "tabels"})


def test_at_an_unknown_place_the_world_is_assumed_and_no_network_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def denied(name: str) -> Callable[..., None]:
        def deny(*_: Any, **__: Any) -> None:
            asked.append(name)
            raise OSError("there is no network here")

        return deny

    for owner, name in ((socket.socket, "connect"), (socket, "create_connection"), (socket, "getaddrinfo")):
        monkeypatch.setattr(owner, name, denied(name))
    clock = FakeClock()
    with Meter(Settings.load({}, export="journal"), sources=[SimulatedSource(36_000.0)], clock=clock) as meter:
        with meter.measured("x") as region:
            clock.advance(100.0)
        clock.advance(0.2)
        impact = region.result().impact
        meter.flush()
    assert asked == []
    table = rows("grid_intensity")
    world = next(float(row["g_co2e_per_kwh"]) for row in table if row["code"] == "WORLD")
    countries = [float(row["g_co2e_per_kwh"]) for row in table if row["kind"] == "country"]
    assert (impact.carbon_g, impact.nature) == (pytest.approx(world), "estimated")
    low, high = impact.intervals["carbon_g"]
    assert low <= min(countries) * 1.001
    assert high is not None and high >= max(countries) * 0.999
    assert "IMPACTSDK_REGION" in impact.reasons["price"]


def test_a_price_in_another_currency_is_not_used_and_said() -> None:
    class Dearer:
        name, trouble = "dearer", None

        def factors(self, *, place: Place | None, unix_ns: int) -> list[Factor]:
            return [Factor("price", 0.2, "{EUR}/(kW.h)", "dearer")]

        def close(self) -> None: ...

    told: list[str] = []
    book = Book(Settings.load({}), [Dearer()], None, lambda key, text: told.append(text))
    assert not [factor for factor in book.rates(0).factors if factor.kind == "price"]
    assert "IMPACTSDK_CURRENCY" in told[0]
    book = Book(Settings.load({}, currency="EUR"), [Dearer()], None, lambda key, text: told.append(text))
    assert [factor.value for factor in book.rates(0).factors if factor.kind == "price"] == [0.2]
    assert len(told) == 1


def test_a_named_provider_that_cannot_be_imported_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    broken = EntryPoint("broken", "no_such_module_anywhere:from_settings", "impactsdk.factors")
    monkeypatch.setattr("impactsdk.discovery._found", lambda group="": {"broken": broken})
    with pytest.raises(ConfigurationError, match="broken"):
        Meter(Settings.load({}, factors="broken"))


@pytest.mark.parametrize(
    "factor",
    [
        Factor("carbon_intensity", 0.4, "kg{CO2e}/(kW.h)", "me"),
        Factor("carbon_intensity", -5.0, "g{CO2e}/(kW.h)", "me"),
        Factor("price", 20.0, "ct/(kW.h)", "me"),
        Factor("price", 0.2, "EUR/kWh", "me"),
        Factor("pue", 0.5, "1", "me"),
    ],
)
def test_units_and_signs_of_a_providers_factors_are_checked(factor: Factor) -> None:
    class Mine:
        name, trouble = "mine", None

        def factors(self, *, place: Place | None, unix_ns: int) -> list[Factor]:
            return [factor]

        def close(self) -> None: ...

    told: list[str] = []
    book = Book(Settings.load({}), [Mine()], None, lambda key, text: told.append(text))
    assert factor not in book.rates(0).factors
    assert len(told) == 1
    assert factor.kind in told[0]
