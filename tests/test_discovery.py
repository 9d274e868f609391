"""Sources and providers are found by their entry points, and the built-in ones without being installed, too."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution

import pytest

from impactsdk import ConfigurationError, Meter, Settings, discovery
from impactsdk.cli.main import main
from impactsdk.semconv import FACTORS_GROUP, SOURCES_GROUP


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As of a source tree on ``PYTHONPATH``: nobody has entry points."""
    with monkeypatch.context() as patch:
        patch.setattr(discovery, "entry_points", lambda group: ())
        yield


@pytest.mark.usefixtures("not_installed")
@pytest.mark.parametrize("group", [SOURCES_GROUP, FACTORS_GROUP])
def test_what_is_built_in_is_what_the_distribution_says(group: str) -> None:
    of_ours = {point.name: point.value for point in distribution("impactsdk").entry_points if point.group == group}
    assert {name: point.value for name, point in discovery._found(group).items()} == of_ours


@pytest.mark.usefixtures("not_installed")
def test_a_copy_that_is_not_installed_measures_all_the_same() -> None:
    with Meter(Settings.load({}, sources="cpu_model", factors="tables", export="none")) as meter:
        with meter.measured("x") as region:
            sum(range(100_000))
        assert str(region.result().method).startswith("model")


@pytest.mark.usefixtures("not_installed")
def test_without_a_name_all_that_is_built_in_is_tried() -> None:
    told: list[str] = []
    groups = discovery.candidates(Settings.load({}), lambda key, text: told.append(text))
    names = {source.name for group in groups for source in group}
    assert names | {text.partition(":")[0] for text in told} >= {"nvml", "rapl", "cpu_model"}


def test_a_plug_in_that_exits_costs_a_warning_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in = types.ModuleType("a_plug_in_that_exits")
    plug_in.factory = lambda settings: sys.exit("no licence")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, plug_in.__name__, plug_in)
    points = [EntryPoint("exits", f"{plug_in.__name__}:factory", group) for group in (SOURCES_GROUP, FACTORS_GROUP)]
    monkeypatch.setattr(discovery, "entry_points", lambda group: [point for point in points if point.group == group])
    with pytest.raises(ConfigurationError, match="'exits' could not be loaded: SystemExit: no licence"):
        Meter(Settings.load({}, factors="exits"))
    told: list[str] = []
    groups = list(discovery.candidates(Settings.load({}), lambda key, text: told.append(text)))
    assert "exits could not be loaded: SystemExit: no licence" in told
    assert "cpu_model" in [source.name for group in groups for source in group]


def test_a_version_that_is_not_known_is_no_number(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def nowhere(name: str) -> str:
        raise PackageNotFoundError(name)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("importlib.metadata.version", nowhere)
        main(["--version"])
    assert capsys.readouterr().out == "impactsdk unknown\n"
