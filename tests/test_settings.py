"""Settings: argument, else environment, else default; nonsense is refused at once and says where it came from."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import impactsdk
from impactsdk import ConfigurationError, DegradedWarning, Meter, Settings, configure, measured
from impactsdk.testing import SimulatedSource
from tests.kit import journals, script, spans_in

# name: (in the environment, what it means, as an argument, what that means, default)
SETTINGS: dict[str, tuple[str, Any, Any, Any, Any]] = {
    "service_name": ("training", "training", "other", "other", None),
    "export": ("journal, summary", ("journal", "summary"), "none", (), None),
    "directory": ("/var/impact", Path("/var/impact"), Path("x"), Path("x"), Path("impact")),
    "boundary": ("machine", "machine", "cgroup", "cgroup", "process"),
    "interval_s": ("0.05", 0.05, 2, 2.0, 0.1),
    "sources": ("nvml, rapl", ("nvml", "rapl"), "none", (), None),
    "region": ("FR", "FR", "aws:eu-west-3", "aws:eu-west-3", None),
    "pue": ("1.2", 1.2, 1, 1.0, None),
    "wue": ("0.2", 0.2, 0, 0.0, None),
    "factors": ("tariff, tables", ("tariff", "tables"), "none", (), None),
    "carbon_intensity_g_per_kwh": ("384.4", 384.4, 0, 0.0, None),
    "carbon_intensity_market_g_per_kwh": ("10", 10.0, 0, 0.0, None),
    "water_intensity_l_per_kwh": ("3.1", 3.1, 0, 0.0, None),
    "embodied_kg": ("1300", 1300.0, 0, 0.0, None),
    "lifetime_years": ("5", 5.0, 3, 3.0, None),
    "resource_share": ("0.25", 0.25, 1, 1.0, None),
    "price_per_kwh": ("0.25", 0.25, 1, 1.0, None),
    "compute_price_per_hour": ("2.5", 2.5, 0, 0.0, None),
    "purchase_price": ("9000", 9000.0, 0, 0.0, None),
    "value_per_unit": ("0.01", 0.01, 0, 0.0, None),
    "currency": ("eur", "EUR", "CHF", "CHF", "USD"),
    "enrich": ("true", True, False, False, False),
    "shutdown_timeout_s": ("2", 2.0, 0.5, 0.5, 5.0),
    "disabled": ("yes", True, False, False, False),
}


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    """Undone before the leak guard looks."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_every_setting_is_tested() -> None:
    assert set(SETTINGS) == set(Settings().names())


@pytest.mark.parametrize("name", SETTINGS)
def test_an_argument_wins_over_the_environment_and_that_over_the_default(name: str) -> None:
    text, meaning, argument, argued, default = SETTINGS[name]
    environ = {f"IMPACTSDK_{name.upper()}": text}
    assert getattr(Settings.load({}), name) == default
    assert getattr(Settings.load({f"IMPACTSDK_{name.upper()}": "  "}), name) == default
    assert getattr(Settings.load(environ), name) == meaning
    assert getattr(Settings.load(environ, **{name: argument}), name) == argued
    assert getattr(Settings.load(environ, **{name: None}), name) == meaning


NONSENSE: dict[str, list[Any]] = {
    "service_name": [" ", 3, b"x"],
    "export": ["jurnal", "none,journal", "otel,auto", 3, b"otel", {"otel": 1}, [1]],
    "directory": ["", 3, b"x", "a\0b", "~nobody-of-this-name/x"],
    "boundary": ["Host", "", 1, ["process"], {}],
    "interval_s": ["fast", 0, -1, math.nan, math.inf, "1e400", True, b"1", 10**400, 1e9, []],
    "sources": ["a,,b", "auto,nvml", 3, [SimulatedSource], [3], [None], {"nvml": 1}],
    "region": ["", 3],
    "pue": [0.9, "x", math.inf, True],
    "wue": [-1, "x"],
    "carbon_intensity_g_per_kwh": [-0.1, "x", math.nan],
    "factors": ["a,,b", "auto,tables", 3, [3], [None], {"tables": 1}, b"tables"],
    "carbon_intensity_market_g_per_kwh": [-0.1, "x"],
    "water_intensity_l_per_kwh": [-1, "x"],
    "embodied_kg": [-1, "x"],
    "lifetime_years": [0, "x", math.inf],
    "resource_share": [0, 1.1, "all"],
    "price_per_kwh": [-1, "free"],
    "compute_price_per_hour": [-1, "x"],
    "purchase_price": [-1, "x"],
    "value_per_unit": [-1, "x"],
    "currency": ["EURO", "€€€", "12A", 3, "ÄÖÜ"],
    "enrich": ["maybe", 2],
    "shutdown_timeout_s": [0, "x", math.inf, 1e300],
    "disabled": ["perhaps", 2, []],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in NONSENSE.items() for value in values])
def test_nonsense_is_refused_and_says_where_it_came_from(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}=") as caught:
        Settings.load({}, **{name: value})
    assert len(str(caught.value)) < 500
    if isinstance(value, str) and value.strip():
        with pytest.raises(ConfigurationError, match=f"^(IMPACTSDK_{name.upper()}|{name})="):
            Settings.load({f"IMPACTSDK_{name.upper()}": value})


def test_a_message_says_what_was_expected() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load({"IMPACTSDK_INTERVAL_S": "fast"})
    assert str(caught.value).startswith("IMPACTSDK_INTERVAL_S='fast': expected a number of seconds > 0")


def test_an_unknown_setting_is_refused_and_the_known_ones_are_named() -> None:
    for name in ("intervall_s", "environ", "cls"):
        with pytest.raises(ConfigurationError, match="there is no such setting; the settings are service_name, export"):
            configure(**{name: 1})


def test_empty_lists_stand_for_nothing() -> None:
    settings = Settings.load({}, export=(), sources=[])
    assert (settings.export, settings.sources) == ((), ())


def test_a_source_that_cannot_show_itself_can_be_used() -> None:
    class Shy(SimulatedSource):
        def __repr__(self) -> str:
            raise RuntimeError("no")

    shy = Shy(100.0)
    assert Settings.load({}, sources=[shy]).sources == (shy,)
    with pytest.raises(ConfigurationError, match="interval_s=<Shy>"):
        Settings.load({}, interval_s=shy)


def test_a_home_directory_is_understood(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("HOME", "/home/somebody")
    assert Settings.load({}, directory="~/runs").directory == Path("/home/somebody/runs")


def test_settings_can_be_copied_and_handed_to_another_process() -> None:
    settings = Settings.load({"IMPACTSDK_PUE": "1.2", "CUDA_VISIBLE_DEVICES": "1"}, export="none")
    for twin in (pickle.loads(pickle.dumps(settings)), copy.deepcopy(settings), Settings(**dataclasses.asdict(settings))):
        assert twin == settings
        assert twin.same_as(settings)
        assert dict(twin.environ) == {"IMPACTSDK_PUE": "1.2", "CUDA_VISIBLE_DEVICES": "1"}


def test_settings_are_frozen_and_do_not_show_the_environment() -> None:
    settings = Settings.load({"SECRET": "hunter2"})
    with pytest.raises(AttributeError):
        settings.pue = 2.0  # type: ignore[misc]
    assert "hunter2" not in repr(settings)
    with pytest.raises(TypeError):
        settings.environ["x"] = "y"  # type: ignore[index]


@pytest.mark.parametrize(("value", "off"), [("true", True), ("TRUE", True), ("1", False), ("yes", False), ("", False)])
def test_otel_sdk_disabled_is_read_as_its_specification_says(value: str, off: bool) -> None:
    assert Settings.load({"OTEL_SDK_DISABLED": value}).disabled is off


def test_an_argument_switches_on_what_the_environment_switched_off() -> None:
    environ = {"OTEL_SDK_DISABLED": "true", "IMPACTSDK_DISABLED": "1"}
    assert Settings.load(environ).disabled
    assert not Settings.load(environ, disabled=False).disabled


# --- configure ---------------------------------------------------------------------------------------------------------------


def test_the_same_configuration_twice_changes_nothing(patch: pytest.MonkeyPatch) -> None:
    source = SimulatedSource(100.0)
    meter = configure(export="none", sources=[source])
    measured("x")(lambda: None)()
    session = meter.session
    patch.setenv("SOMETHING_ELSE", "1")
    assert configure(export="none", sources=[source]) is meter
    assert meter.session is session
    impactsdk.flush()
    assert meter.totals().operations["x"].count == 1


def test_another_configuration_writes_what_was_measured_and_begins_anew(tmp_path: Path) -> None:
    source = SimulatedSource(100.0)
    meter = configure(export="journal", sources=[source])
    function = measured("x")(lambda: 1)
    with measured("open") as region:
        function()
        configure(export="none", sources=[source], pue=1.1)
        function()
    (lines,) = journals(tmp_path)
    assert {span["name"] for span in spans_in(lines)} == {"x", "open"}
    assert region.result().energy_j is not None
    assert impactsdk.flush()
    assert meter.totals().operations["x"].count == 1
    assert impactsdk.current() is None


def test_a_configuration_that_is_refused_leaves_what_runs(tmp_path: Path) -> None:
    meter = configure(export="none", sources="none")
    measured("x")(lambda: None)()
    session = meter.session
    for bad in ({"interval_s": -1}, {"sources": "nvlm"}, {"nonsense": 1}):
        with pytest.raises(ConfigurationError):
            configure(**bad)
    assert meter.session is session


def test_configure_after_shutdown_measures_again() -> None:
    function = measured("x")(lambda: 1)
    configure(export="none", sources="none")
    function()
    assert impactsdk.shutdown()
    assert function() == 1
    meter = configure(export="none", sources="none")
    function()
    impactsdk.flush()
    assert meter.totals().operations["x"].count == 1


def test_bad_variables_are_told_at_first_use_and_the_others_hold(patch: pytest.MonkeyPatch) -> None:
    wrong = {
        "PUE": ("0.5", r"expected a number >= 1"),
        "INTERVAL_S": ("fast", "expected a number of seconds > 0"),
        "FACTORS": ("nope", "there is no provider of factors 'nope'"),
        "REGION": ("XX1", "region"),
        "PURCHASE_PRICE": ("9", "a machine is rented or bought; set one of them"),
        "DISABLED": ("perhaps", "expected true or false"),
    }
    right = {"SOURCES": "none", "EXPORT": "none", "COMPUTE_PRICE_PER_HOUR": "2", "WUE": "0.3"}
    for name, value in [*((name, value) for name, (value, _) in wrong.items()), *right.items()]:
        patch.setenv(f"IMPACTSDK_{name}", value)
    called = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            measured("x")(lambda: called.append(1))()
    assert called == [1, 1]
    told = sorted(str(warning.message) for warning in caught if "IMPACTSDK_" in str(warning.message))
    for message, (name, (_, why)) in zip(told, sorted(wrong.items()), strict=True):
        assert re.match(rf"IMPACTSDK_{name} is left out, and its default holds: .*{why}", message)
    settings = impactsdk.meter.default_meter().settings
    assert (settings.pue, settings.interval_s, settings.region, settings.purchase_price) == (None, 0.1, None, None)
    assert (settings.wue, settings.compute_price_per_hour, settings.sources) == (0.3, 2.0, ())
    with pytest.raises(ConfigurationError, match="IMPACTSDK_"):
        configure(export="none", sources="none")


def test_who_shows_the_warning_about_a_bad_variable_may_be_measured(patch: pytest.MonkeyPatch) -> None:
    for name, value in {"PUE": "0.5", "SOURCES": "none", "EXPORT": "none"}.items():
        patch.setenv(f"IMPACTSDK_{name}", value)
    shown = []

    @measured("shows")
    def show(message: Warning | str, *_: object, **__: object) -> None:
        shown.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        patch.setattr(warnings, "showwarning", show)
        with measured("x"):
            pass
    assert ["IMPACTSDK_PUE" in message for message in shown] == [True]
    assert impactsdk.flush()
    assert list(impactsdk.meter.default_meter().totals().operations) == ["x"], "it was not measured itself: we had not begun"


def test_where_it_is_disabled_a_bad_variable_is_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("IMPACTSDK_PUE", "0.5")
    patch.setenv("IMPACTSDK_DISABLED", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measured("x")(lambda: 3)() == 3


# --- variables, in a process of their own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", [{"IMPACTSDK_DISABLED": "1"}, {"OTEL_SDK_DISABLED": "true"}])
def test_disabled_there_is_no_thread_no_file_and_no_word(tmp_path: Path, variable: dict[str, str]) -> None:
    output, errors = script(
        """
import threading, inspect, sys
import impactsdk
@impactsdk.measured(unit="item", count=lambda _: 1 / 0)
def f(x):
    return [frame.function for frame in inspect.stack()], impactsdk.current(), x
stack, current, x = f(3)
assert (stack[0], current, x) == ("f", None, 3)
with impactsdk.measured("block") as region:
    region.add_units(1)
print(region.result().quality, threading.active_count(), "opentelemetry.sdk" in sys.modules, "psutil" in sys.modules)
""",
        tmp_path,
        **variable,
    )
    assert output == "absent 1 False False\n"
    assert errors == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["script.py"]


def test_a_source_that_does_not_exist_is_named_and_those_of_the_machine_are_used(tmp_path: Path) -> None:
    output, errors = script(
        "from impactsdk import measured\nprint(measured('x')(lambda: 1)())\n", tmp_path, IMPACTSDK_SOURCES="nvml,nvlm"
    )
    assert output == "1\n"
    assert "IMPACTSDK_SOURCES is left out" in errors
    assert "sources: there is no source 'nvlm'; installed are cpu_model, nvml, rapl" in errors
    with pytest.raises(ConfigurationError, match="there is no source 'nvlm'"):
        Meter(Settings.load({"IMPACTSDK_SOURCES": "nvlm"}))


def test_no_source_at_all_measures_time_and_says_that_energy_is_unknown(tmp_path: Path) -> None:
    output, errors = script(
        "from impactsdk import measured\nwith measured('x') as r: pass\nprint(r.result().quality, r.result().energy_j)",
        tmp_path,
        IMPACTSDK_SOURCES="none",
    )
    assert output == "absent None\n"
    assert "the energy is unknown" in errors
    assert "Warning" not in errors


def test_a_source_is_found_by_its_name(tmp_path: Path) -> None:
    output, _ = script(
        """
import time
from impactsdk import measured
with measured('x') as r: time.sleep(0.3)
print(r.result().method, r.result().nature, r.result().energy_j is not None)
""",
        tmp_path,
        IMPACTSDK_SOURCES="cpu_model",
        IMPACTSDK_EXPORT="none",
    )
    method, nature, known = output.split()
    assert method.startswith("model")
    assert (nature, known) == ("estimated", "True")


def test_configure_without_names_gives_the_meter_as_it_was_set() -> None:
    meter = impactsdk.configure(export="none", sources=[SimulatedSource(100.0)], pue=1.5)
    with impactsdk.measured("x"):
        pass
    assert impactsdk.flush()
    assert impactsdk.configure() is meter
    assert meter.settings.pue == 1.5
    assert meter.totals().operations["x"].count == 1
    impactsdk.shutdown()
    assert impactsdk.configure().totals().operations["x"].count == 1
    with impactsdk.measured("y"):
        pass
    assert impactsdk.flush()
    assert list(meter.totals().operations) == ["y"]
    impactsdk.configure(export="none", sources="none")
    assert meter.totals().operations == {}
    assert meter.settings.pue is None


def test_a_misspelt_variable_is_said_and_one_of_somebody_elses_is_not() -> None:
    strange = {"IMPACTSDK_REGOIN": "FR", "IMPACTSDK_MY_OWN_SOURCE_HOST": "x", "IMPACTSDK_TARIFF": "x", "IMPACTSDK_PUE": "1.2"}
    settings = Settings.load(strange, export="none")
    assert settings.misspelt() == {"IMPACTSDK_REGOIN": "IMPACTSDK_REGION"}
    with (
        pytest.warns(DegradedWarning, match="IMPACTSDK_REGOIN is no variable .* is IMPACTSDK_REGION meant"),
        Meter(settings, sources=[SimulatedSource(100.0)]) as meter,
        meter.measured("x"),
    ):
        pass


def test_a_variable_that_a_framework_sets_meanwhile_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [SimulatedSource(100.0)]
    meter = configure(export="none", sources=sources)
    with measured("epoch") as epoch:
        with measured("step", span=False):
            monkeypatch.setenv("CUDA_MODULE_LOADING", "LAZY")  # as torch.cuda does
        with impactsdk.handed_down():
            configure()
            configure(export="none", sources=sources)
    monkeypatch.delenv("CUDA_MODULE_LOADING")
    assert impactsdk.flush()
    assert meter.totals().operations["step"].count == 1
    assert epoch.result().coverage == 1.0
