"""The meter: totals, limits, impacts, closing, and that memory does not grow with what is measured."""

from __future__ import annotations

import gc
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import get_current_span

import impactsdk
from impactsdk import ConfigurationError, DegradedWarning, Meter, RegionError, Settings, SettleTimeoutError
from impactsdk.region import Region, innermost
from impactsdk.testing import FakeClock, SimulatedSource, wait_until
from tests.kit import attributes, bench, conserved


def test_nothing_is_started_before_the_first_region() -> None:
    source = SimulatedSource(100.0)
    before = threading.active_count()
    meter = Meter(Settings.load({}, export="none"), sources=[source])
    meter.measured("x")
    meter.measured(lambda: None)
    assert meter.totals().channels == {}
    assert meter.flush()
    assert threading.active_count() == before
    assert source.reads == 0
    assert meter.close()
    assert threading.active_count() == before


def test_totals_are_what_the_device_used() -> None:
    clock = FakeClock()
    source = SimulatedSource(lambda second: 50.0 + 10.0 * second)
    with bench(sources=[source], clock=clock) as here:
        with here.measured("a"):
            clock.advance(1.0)
        begun_ns = clock.now_ns() - 1_000_000_000
        clock.advance(1.0)
        with here.measured("b"):
            clock.advance(1.0)
        clock.advance(0.5)
        totals = here.totals()
        assert totals.channels["sim:0"] == pytest.approx(source.true_energy_j(begun_ns, clock.now_ns()))
        assert totals.operations["a"].energy_j == pytest.approx(source.true_energy_j(begun_ns, begun_ns + 10**9), rel=0.01)
        assert totals.unattributed_j > 0
        conserved(totals)


def test_the_totals_outlive_the_meter() -> None:
    with bench() as here:
        with here.measured("x"):
            pass
        assert here.meter.close()
        assert here.meter.close(), "twice is once"
        totals = here.meter.totals()
        assert totals.operations["x"].count == 1
        conserved(totals)


def test_a_closed_meter_measures_nothing_and_breaks_nothing() -> None:
    with bench() as here:
        function = here.measured("x", unit="item", count=lambda _: 1)(lambda: 5)
        function()
        here.meter.close()
        assert function() == 5
        with here.measured("y", unit="item") as region:
            region.add_units(3)
        result = region.result()
        assert (result.energy_j, result.quality, result.units) == (None, "absent", 3)
        assert result.duration_s >= 0
        assert set(here.meter.totals().operations) == {"x"}


def test_closing_inside_a_block_settles_the_block() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        with here.measured("x") as region:
            clock.advance(0.5)
            with here.measured("done"):
                clock.advance(0.5)
            here.meter.close()
        assert region.result().energy_j == pytest.approx(100.0)
        totals = here.meter.totals()
        assert totals.operations["x"].count == 1
        conserved(totals)
        assert impactsdk.current() is None


def test_a_meter_is_a_context_manager_and_leaves_nothing_behind() -> None:
    source = SimulatedSource(100.0)
    with Meter(Settings.load({}, export="none"), sources=[source]) as meter, meter.measured("x"):
        pass
    assert source.closed
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("impactsdk")]


def test_a_result_that_does_not_come_in_time_says_so() -> None:
    clock = FakeClock()
    with bench(sources=[SimulatedSource(100.0, tick_s=10.0)], clock=clock) as here:
        with here.measured("x") as region:
            clock.advance(0.01)
        with pytest.raises(SettleTimeoutError, match="no reading that covers 'x'"):
            region.result(timeout_s=0.05)


def test_a_result_is_not_to_be_had_in_another_process() -> None:
    with bench() as here:
        with here.measured("x") as region:
            pass
        here.meter.session.dead = True  # type: ignore[union-attr]
        try:
            with pytest.raises(RegionError, match="another process"):
                region.result()
        finally:
            here.meter.session.dead = False  # type: ignore[union-attr]


@pytest.mark.parametrize("call", ["flush", "close", "result"])
def test_a_time_out_may_be_as_long_as_one_likes(call: str) -> None:
    with bench() as here:
        with here.measured("x") as region:
            pass
        for timeout_s in (1e300, math.inf):
            if call == "result":
                region.result(timeout_s)
            else:
                assert getattr(here.meter, call)(timeout_s)


# --- impacts -----------------------------------------------------------------------------------------------------------------


def test_one_kilowatt_hour_costs_what_was_computed_by_hand() -> None:
    clock = FakeClock()
    factors = {"pue": 1.2, "carbon_intensity_g_per_kwh": 384.40, "price_per_kwh": 0.25, "currency": "eur"}
    with bench(clock=clock, sources=[SimulatedSource(36_000.0)], **factors) as here:
        with here.measured("x", unit="item") as region:
            region.add_units(4)
            clock.advance(100.0)
        clock.advance(0.2)
        impact = region.result().impact
        assert region.result().energy_j == pytest.approx(3_600_000.0)
        assert impact.carbon_g == pytest.approx(461.28)
        assert impact.cost == pytest.approx(0.30)
        assert impact.currency == "EUR"
        assert impact.sci_g_per_unit == pytest.approx(461.28 / 4 + impact.embodied_g / 4)
        by_user = {factor.kind: factor.value for factor in impact.factors if factor.source == "user"}
        assert by_user == {"pue": 1.2, "carbon_intensity": 384.40, "price": 0.25}
        assert here.totals().operations["x"].impact.carbon_g == pytest.approx(461.28)


def test_without_factors_nothing_is_known_of_carbon_and_money() -> None:
    with bench(pue=1.5, factors="none") as here:
        with here.measured("x") as region:
            pass
        impact = region.result().impact
        known = (impact.carbon_g, impact.water_l, impact.cost, impact.damage_usd, impact.health_daly, impact.sci_g_per_unit)
        assert known == (None,) * 6
        assert "IMPACTSDK_CARBON_INTENSITY_G_PER_KWH" in impact.reasons["carbon_intensity"]


def test_only_the_known_factor_is_used() -> None:
    with bench(price_per_kwh=0.0, factors="none") as here:
        with here.measured("x") as region:
            pass
        impact = region.result().impact
        assert (impact.carbon_g, impact.cost, impact.currency, impact.sci_g_per_unit) == (None, 0.0, "USD", None)


def test_unknown_energy_has_unknown_impacts() -> None:
    with bench(sources=[], carbon_intensity_g_per_kwh=400, price_per_kwh=1) as here:
        with here.measured("x") as region:
            pass
        result = region.result()
        assert (result.energy_j, result.impact.carbon_g, result.impact.cost) == (None, None, None)
        assert here.totals().operations["x"].energy_j is None
        assert here.totals().operations["x"].impact.carbon_g is None


# --- memory ------------------------------------------------------------------------------------------------------------------


def _objects(kind: str) -> int:
    gc.collect()
    return sum(type(thing).__name__ == kind for thing in gc.get_objects())


@pytest.mark.parametrize(("rounds", "span"), [(20_000, False), (2_000, True)])
def test_memory_does_not_grow_with_the_number_of_regions(rounds: int, span: bool) -> None:
    with bench(export="none", sources=[SimulatedSource(100.0)]) as here:
        function = here.measured("x", span=span)(lambda: None)
        session = here.meter.begin()
        before = {kind: _objects(kind) for kind in ("Region", "Segment")}
        for _ in range(rounds):
            function()
        assert here.meter.flush()
        assert here.totals().operations["x"].count == rounds
        assert len(session.tallies) == 1  # type: ignore[union-attr]
        assert not session._books.pending  # type: ignore[union-attr]
        assert not session.events  # type: ignore[union-attr]
        assert _objects("Region") - before["Region"] <= 1
        assert _objects("Segment") - before["Segment"] < 50


def test_names_beyond_the_limit_are_kept_together() -> None:
    with bench() as here:
        with pytest.warns(DegradedWarning, match="more than 2000 different names") as caught:
            for number in range(2_050):
                with here.measured(f"request {number}", span=False, unit="item") as region:
                    region.add_units(1)
            here.meter.flush()
        assert len(caught) == 1
        totals = here.totals()
        assert len(totals.operations) == 2_001
        assert totals.operations["(other names)"].count == 50
        assert sum(operation.count for operation in totals.operations.values()) == 2_050
        conserved(totals)
        assert len(here.meter._ledger_specs) <= 2_000


def test_a_block_that_is_made_anew_each_time_costs_no_memory() -> None:
    with bench() as here:
        for number in range(500):
            with here.measured("x", span=False, attributes={"number": number}):
                pass
        assert len(here.meter._ledger_specs) == 0


# --- track -------------------------------------------------------------------------------------------------------------------


def test_track_measures_the_body_of_the_loop() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:

        def loader() -> object:
            for number in range(4):
                clock.advance(0.1)  # not the body
                yield number

        for number in here.meter.track(loader(), name="train", unit="batch"):  # type: ignore[var-annotated,arg-type]
            assert impactsdk.current() is not None
            clock.advance(0.2)
            if number == 2:
                break
        assert impactsdk.current() is None
        clock.advance(0.2)
        totals = here.totals()
        assert totals.operations["train"].count == 3
        assert totals.operations["train"].units == 3
        assert totals.operations["train"].energy_j == pytest.approx(60.0)
        assert here.all_spans == ()
        conserved(totals)


def test_track_refuses_a_bad_name_at_once() -> None:
    with bench() as here, pytest.raises(ConfigurationError):
        here.meter.track([], name="")


def test_two_tracks_may_be_zipped() -> None:
    with bench() as here:
        track: Callable[..., object] = here.meter.track
        pairs = list(zip(track(range(50), name="a"), track(range(50), name="b"), strict=True))  # type: ignore[call-overload]
        assert len(pairs) == 50
        totals = here.totals()
        assert totals.operations["a"].count == totals.operations["b"].count == 50
        assert impactsdk.current() is None
        conserved(totals)


def test_of_two_tracks_that_are_zipped_the_inner_one_has_every_turn() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        track: Callable[..., Any] = here.meter.track
        with here.measured("outer", span=False):
            for _ in zip(track(range(5), name="a"), track(range(5), name="b"), strict=True):
                clock.advance(1.0)
                current = impactsdk.current()
                assert current is not None
                assert current.parent is not None
                assert (current.name, current.parent.name) == ("b", "a")
        clock.advance(1.0)
        totals = here.totals()
        assert totals.operations["b"].energy_j == pytest.approx(500.0)
        assert totals.operations["a"].energy_j == pytest.approx(0.0)
        conserved(totals)


def test_each_turn_of_tracks_that_are_zipped_is_left_once_and_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[tuple[str, bool]] = []
    leave = Region._leave_oddly

    def noted(region: Any, at_ns: int, error: BaseException | None) -> None:
        leave(region, at_ns, error)
        left.append((region.name, region.recorder.awaited))

    monkeypatch.setattr(Region, "_leave_oddly", noted)
    clock, around = FakeClock(), innermost.get()  # a test before this one may have left a region there that is closed
    with bench(clock=clock) as here:
        track: Callable[..., Any] = here.meter.track
        for turn, _ in zip(track(range(9), name="a"), track(range(9), name="b"), strict=True):
            clock.advance(1.0)
            if turn == 2:
                break
        assert sorted(left) == [("a", False)] * 2 + [("b", False)] * 2, "the last turn as any other"
        assert innermost.get() is around
        totals = here.totals()
        assert (totals.operations["a"].count, totals.operations["b"].count) == (3, 3)
        conserved(totals)


# --- what a meter refuses ----------------------------------------------------------------------------------------------------


def test_a_meter_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ConfigurationError, match="factors="):
        Meter(factors=[object()])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"expected impactsdk\.Settings"):
        Meter({"export": "none"})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="there is no source 'nvlm'"):
        Meter(sources=["nvlm"])
    with pytest.raises(ConfigurationError, match="sources="):
        Meter(sources=[SimulatedSource])  # type: ignore[list-item]


def test_the_sources_given_to_a_meter_win() -> None:
    settings = Settings.load({"IMPACTSDK_SOURCES": "none"}, export="none")
    with Meter(settings, sources=[SimulatedSource(100.0)]) as meter:
        with meter.measured("x"):
            pass
        meter.flush()
        assert list(meter.totals().channels) == ["sim:0"]


def test_the_interpreter_is_not_kept_busy_by_an_idle_meter() -> None:
    clock = FakeClock()
    source = SimulatedSource(100.0)
    with bench(sources=[source], clock=clock) as here:
        with here.measured("x"):
            clock.advance(1.0)
        clock.advance(3.0)
        before = source.reads
        clock.advance(60.0)
        assert source.reads - before <= 20
        assert sys.getrefcount(source) > 0


# --- from inside: listeners, exporters and sources run in the sampler's thread ------------------------------------------------


def test_a_listener_may_ask_for_totals_by_configure_while_the_meter_is_closed() -> None:
    seen = []
    meter = impactsdk.configure(sources=[SimulatedSource(100.0)], export="none")
    meter.listeners.append(lambda _: (time.sleep(0.02), seen.append(impactsdk.configure().totals())))
    for _ in range(3):
        with impactsdk.measured("a"):
            pass
    assert impactsdk.shutdown()
    assert len(seen) == 3


def test_a_listener_that_closes_the_meter_waits_for_nothing_and_leaves_no_thread() -> None:
    before = threading.active_count()
    meter = Meter(Settings.load({}, export="none"), sources=[SimulatedSource(100.0)])
    closed: list[bool] = []
    meter.listeners.append(lambda _: closed.append(meter.close()))
    with meter.measured("a"):
        pass
    assert wait_until(lambda: bool(closed))
    assert closed == [False], "not all is written yet when it returns"
    assert meter.close(), "but it is when somebody else asks"
    assert threading.active_count() == before
    assert meter.totals().operations["a"].count == 1


def test_a_source_that_measures_or_forks_while_it_is_opened_holds_up_nobody() -> None:
    class Busy(SimulatedSource):
        def open(self, clock: Any) -> Any:
            if hasattr(os, "fork"):
                child = os.fork()
                if child == 0:
                    os._exit(0)
                os.waitpid(child, 0)
            with impactsdk.measured("of the default meter"), meter.measured("of the same"):
                pass
            return super().open(clock)

    meter = Meter(Settings.load({}, export="none"), sources=[Busy(100.0)])
    with meter.measured("a") as region:
        time.sleep(0.01)
    assert region.result().quality != "partial"
    assert meter.close()
    assert list(meter.totals().operations) == ["a"]


def test_a_machine_that_does_not_say_what_it_is_made_of_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a container hides /proc/meminfo."""

    def hidden() -> None:
        raise KeyError("MemTotal:")

    monkeypatch.setattr("psutil.virtual_memory", hidden)
    with (
        pytest.warns(DegradedWarning, match="made of"),
        Meter(Settings.load({}, export="none"), sources=[SimulatedSource(100.0)]) as meter,
    ):
        with meter.measured("a") as region:
            pass
        assert region.result().energy_j is not None


def test_a_listener_that_flushes_or_asks_for_a_result_is_answered_at_once_and_holds_up_nobody() -> None:
    clock = FakeClock()
    seen: list[Any] = []
    with bench(clock=clock) as here:
        other = here.measured("other", span=False).__enter__()

        def listener(found: Any) -> None:
            seen.append(here.meter.flush(60.0))
            if found.name == "a":
                seen.append(a.result(60.0))
                with pytest.raises(SettleTimeoutError, match="while a listener or an exporter waits"):
                    other.result(60.0)

        here.meter.listeners.append(listener)
        with here.measured("a") as a:
            clock.advance(1.0)
        other.__exit__(None, None, None)
        clock.advance(1.0)
        assert here.meter.flush()
        assert seen == [False, a.result(), False], "what has ended meanwhile is still to be settled"


def test_an_application_s_processor_that_flushes_its_provider_at_each_span_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        flushed, waited = [], []

        class Eager(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                flushed.append(here.provider.force_flush())

        here.provider.add_span_processor(Eager())
        with here.measured("begins"):
            session: Any = here.meter.session
        settled = session._settled
        monkeypatch.setattr(session, "_settled", lambda at_ns: waited.append(session.within) or settled(at_ns))
        with here.measured("x"):
            clock.advance(1.0)
        clock.advance(1.0)
        assert len(here.all_spans) == 2
        assert flushed == [True, True]
        assert not any(waited)


@pytest.mark.parametrize("late_s", [0.05, 0.0])
def test_a_region_that_has_begun_after_the_last_reading_is_closed_with_the_others(late_s: float) -> None:
    clock = FakeClock()
    with bench(sources=[SimulatedSource(100.0, tick_s=0.1)], clock=clock) as here:
        outer, inner = here.measured("outer"), here.measured("inner")
        outer.__enter__()
        clock.advance(2.0)
        inner.__enter__()
        clock.advance(late_s)
        assert here.meter.close()
        assert [(span.name, attributes(span)["impact.interrupted"]) for span in here.all_spans] == [
            ("inner", True),
            ("outer", True),
        ]
        totals = here.meter.totals()
        assert {name: operation.count for name, operation in totals.operations.items()} == {"outer": 1, "inner": 1}
        conserved(totals)
        found = inner.result()
        assert found.energy_low_j is not None
        assert found.energy_high_j is not None
        assert found.energy_low_j <= 100.0 * late_s <= found.energy_high_j + 1e-9
        inner.__exit__(None, None, None)
        outer.__exit__(None, None, None)


# --- closed while a block goes on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [True, False])
def test_units_of_a_block_that_goes_on_after_its_meter_was_closed_are_taken_and_not_counted(span: bool) -> None:
    with bench() as here:
        block = here.measured("epoch", unit="row", span=span)
        with block as epoch, block as again:
            epoch.add_units(1)
            here.meter.close()
            epoch.add_units(2)
            again.add_units(3)
            assert impactsdk.current() is not None
            impactsdk.current().add_units(4)  # type: ignore[union-attr]
            thread = threading.Thread(target=epoch.add_units, args=(5,))
            thread.start()
            thread.join()
            with pytest.raises(ConfigurationError, match="units=-1"):
                epoch.add_units(-1)
        assert impactsdk.current() is None
        with pytest.raises(RegionError, match="'epoch' is not open"):
            epoch.add_units(6)
        operation = here.meter.totals().operations["epoch"]
        assert (operation.count, operation.units) == (2, 1.0)


@pytest.mark.parametrize("decorated", [True, False])
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1)], ids=repr)
def test_a_block_that_fails_after_its_meter_was_closed_is_left_without_a_word(
    decorated: bool, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with bench() as here:

        def work() -> None:
            here.meter.close()
            raise error

        with pytest.raises(type(error)):
            if decorated:
                here.measured("x")(work)()
            else:
                with here.measured("x"):
                    work()
        assert not caplog.records
        assert impactsdk.current() is None
        assert not get_current_span().get_span_context().is_valid, "its span has left the context"
        (found,) = here.all_spans
        assert attributes(found)["impact.interrupted"] is True


def test_configure_without_names_ends_each_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("IMPACTSDK_EXPORT", "none")
        for name in ("first", "second", "third"):
            patched.setenv("IMPACTSDK_SERVICE_NAME", name)
            impactsdk.shutdown()
            assert not impactsdk.configure().begin().off
            assert impactsdk.configure().settings.service_name == name
