"""The whole meter on a clock that stands still, against the slow account of :mod:`tests.energy.world`."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impactsdk import Meter, Settings
from impactsdk.energy.entry import Tally
from impactsdk.model import Measurement
from impactsdk.testing import FakeClock, SimulatedSource, capture
from tests.energy.world import Party, Reference


class Truth:
    """A simulated source as the reference wants it."""

    def __init__(self, source: SimulatedSource) -> None:
        self.source = source

    def true_nj(self, at_ns: int) -> int:
        return round(self.source.true_energy_j(self.source._opened_ns, at_ns) * 1e9)


class Place:
    """One context: a thread or a task."""

    def __init__(self, context: contextvars.Context, current: Party | None) -> None:
        self.context, self.current = context, current
        self.stack: list[tuple[Party, Any, Party | None]] = []


class Play:
    """Lets regions happen and tells the reference the same."""

    def __init__(self, meter: Meter, clock: FakeClock) -> None:
        self.meter, self.clock = meter, clock
        self.parties: list[Party] = []
        self.events: list[Any] = []
        self.places = [Place(contextvars.Context(), None)]
        self.generators: list[tuple[Iterator[Any], Party, list[Party]]] = []
        self.alive: set[Party] = set()

    def party(self, parent: Party | None) -> Party:
        party = Party(len(self.parties))
        party.parent, party.tally = parent, Tally("", None)
        self.parties.append(party)
        self.alive.add(party)
        return party

    def note(self, what: str, party: Party, leaf: Party | None = None, other: Party | None = None) -> None:
        self.events.append((self.clock.now_ns(), what, party, leaf, other))
        if what == "end":
            self.alive.discard(party)

    def innermost(self, place: Place) -> Party | None:
        party = place.current
        while party is not None and party not in self.alive:
            party = party.parent  # type: ignore[assignment]
        return party

    def enter(self, place: Place) -> None:
        parent = self.innermost(place)
        party = self.party(parent)
        region = self.meter.measured(f"region {party.number}", span=party.number % 2 == 0)
        place.context.run(region.__enter__)
        self.note("start", party, None, parent)
        place.stack.append((party, region, place.current))
        place.current = party

    def leave(self, place: Place, *, raising: bool) -> None:
        if not place.stack:
            return
        party, region, before = place.stack.pop()
        error = ValueError("the user's") if raising else None
        place.context.run(region.__exit__, type(error) if error else None, error, None)
        self.note("end", party)
        place.current = before

    def fork(self, place: Place) -> None:
        self.places.append(Place(place.context.run(contextvars.copy_context), self.innermost(place)))

    def generate(self, place: Place, wait_s: float) -> None:
        parent = self.innermost(place)
        own, inner = self.party(parent), None
        leaf = [own]

        @self.meter.measured(f"region {own.number}")
        def body() -> Iterator[int]:
            nonlocal inner
            yield 0
            inner = self.party(own)
            with self.meter.measured(f"region {inner.number}"):
                self.note("start", inner, None, own)
                self.clock.advance(wait_s)
                leaf[0] = inner
                yield 1
                self.clock.advance(wait_s)
                self.note("end", inner)
                leaf[0] = own
            self.clock.advance(wait_s)
            yield 2

        self.note("start", own, None, parent)
        generator = body()
        place.context.run(next, generator)
        self.note("pause", own, own)
        self.generators.append((generator, own, leaf))

    def step(self, number: int, place: Place) -> None:
        if not self.generators:
            return
        generator, own, leaf = self.generators[number % len(self.generators)]
        self.note("resume", own, leaf[0], self.innermost(place))
        if place.context.run(next, generator, None) is None:
            self.note("end", own)
            self.generators.remove((generator, own, leaf))
        else:
            self.note("pause", own, leaf[0])

    def finish(self) -> None:
        while self.generators:
            self.step(0, self.places[0])
            self.clock.advance(0.004)
        for place in reversed(self.places):
            while place.stack:
                self.leave(place, raising=False)


def bursts(watts: list[int]) -> Callable[[float], float]:
    return lambda at_s: float(watts[int(at_s * 100) % len(watts)])


watts = st.lists(st.sampled_from([0, 60, 300]), min_size=1, max_size=30)
sources = st.lists(
    st.builds(
        lambda power_w, tick_s, limit, phase_s, kind: (power_w, tick_s, limit, phase_s, kind),
        watts,
        st.sampled_from([0.0, 0.0, 0.02, 0.1]),
        st.booleans(),
        st.floats(0, 0.1),
        st.sampled_from(["gpu", "gpu", "cpu", "estimated"]),
    ),
    min_size=1,
    max_size=3,
)
wait = st.sampled_from([0.0, 0.0, 0.0005, 0.003, 0.011, 0.03, 0.07, 0.25, 1.3])
acts = st.lists(
    st.tuples(
        wait,
        st.sampled_from(["enter", "enter", "leave", "raise", "fork", "generate", "step", "step", "step"]),
        st.integers(0, 9),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=25,
)


def made(told: list[tuple[Any, ...]]) -> list[SimulatedSource]:
    return [
        SimulatedSource(
            bursts(power_w),
            type="gpu" if kind == "gpu" else "cpu",
            id=f"sim:{number}",
            tick_s=tick_s,
            phase_s=phase_s,
            max_power_w=300.0 if limit else None,
            nature="estimated" if kind == "estimated" else "measured",
        )
        for number, (power_w, tick_s, limit, phase_s, kind) in enumerate(told)
    ]


@settings(max_examples=30)
@given(sources, acts, st.sampled_from([0.0, 0.4, 2.2, 7.0]))
def test_each_region_owes_what_the_true_power_says_and_nothing_is_lost_between_them(told, steps, before_s) -> None:
    clock, devices = FakeClock(), made(told)
    with Meter(Settings.load({}, export="none"), sources=devices, clock=clock) as meter, capture(meter=meter) as captured:
        with meter.measured("first"):
            pass
        clock.advance(before_s)  # the sampler may sleep long by now
        play = Play(meter, clock)
        for wait_s, what, i, j in steps:
            clock.advance(wait_s)
            place = play.places[i % len(play.places)]
            if what == "enter":
                play.enter(place)
            elif what in ("leave", "raise"):
                play.leave(place, raising=what == "raise")
            elif what == "fork" and len(play.places) < 4:
                play.fork(place)
            elif what == "generate":
                play.generate(place, wait_s)
            elif what == "step":
                play.step(j, place)
        play.finish()
        for _ in range(12):  # a counter that has not moved yet may be one that ticks slowly
            clock.advance(0.5)
        measurements = {measurement.name: measurement for measurement in captured}
        check_truth(play, devices, measurements)
        check_totals(meter, devices, clock, behind_s=13.0)  # nothing runs: it is read every five seconds
    check_totals(meter, devices, clock, behind_s=0.11)


def check_truth(play: Play, devices: list[SimulatedSource], measurements: dict[str, Measurement]) -> None:
    reference = Reference([Truth(device) for device in devices], play.parties)  # type: ignore[misc]
    reference.now_ns = devices[0]._opened_ns
    for event in play.events:
        reference.take(event)
    for party in play.parties:
        found = measurements[f"region {party.number}"]
        own, whole = float(sum(party.own)), float(sum(party.own) + sum(party.below))
        assert found.energy_j is not None
        assert found.self_energy_j is not None
        for truth_j, low_j, energy_j, high_j in (
            (whole, found.energy_low_j, found.energy_j, found.energy_high_j),
            (own, found.self_energy_low_j, found.self_energy_j, found.self_energy_high_j),
        ):
            assert low_j is not None
            most_j = math.inf if high_j is None else high_j
            assert 0.0 <= low_j <= energy_j <= most_j
            assert low_j - 1e-6 <= truth_j <= most_j + 1e-6, (party.number, play.events)
        assert found.coverage == 1.0
        assert math.fsum(found.energy_by_type.values()) == pytest.approx(found.energy_j)


def check_totals(meter: Meter, devices: list[SimulatedSource], clock: FakeClock, *, behind_s: float) -> None:
    totals = meter.totals()
    counted_j = math.fsum(totals.channels.values())
    owed_j = math.fsum(operation.energy_j or 0.0 for operation in totals.operations.values())
    assert totals.attributed_j + totals.unattributed_j + totals.others_j == pytest.approx(counted_j, rel=1e-9, abs=1e-9)
    assert owed_j == pytest.approx(totals.attributed_j, rel=1e-9, abs=1e-9)
    assert totals.others_j == 0.0
    for device in devices:
        used_j = device.true_energy_j(device._opened_ns, clock.now_ns())
        before_j = device.true_energy_j(device._opened_ns, clock.now_ns() - round(behind_s * 1e9))
        assert before_j - 1e-6 <= totals.channels[device.channel.id] <= used_j + 1e-6


def test_a_region_that_wakes_the_sampler_is_charged_only_for_its_own_time() -> None:
    clock = FakeClock()
    device = SimulatedSource(lambda at_s: 300.0 if at_s > 62.0 else 10.0, tick_s=0.1, max_power_w=300.0)
    with Meter(Settings.load({}, export="none"), sources=[device], clock=clock) as meter:
        with meter.measured("first"):
            clock.advance(1.0)
        clock.advance(61.0)
        reads = device.reads
        begun_ns = clock.now_ns()
        with meter.measured("second") as region:
            clock.advance(2.0)
        ended_ns = clock.now_ns()
        clock.advance(1.0)
        found = region.result()
        truth_j = device.true_energy_j(begun_ns, ended_ns)
        assert found.energy_j == pytest.approx(truth_j, rel=0.03)
        assert found.energy_low_j is not None
        assert found.energy_high_j is not None
        assert found.energy_low_j <= truth_j <= found.energy_high_j
        assert found.energy_high_j - found.energy_low_j < 0.2 * truth_j
        assert reads < 200


def test_regions_that_are_open_when_the_meter_is_closed_are_settled_with_an_interval_that_holds() -> None:
    for tick_s in (0.0, 0.02, 0.1):
        clock = FakeClock()
        device = SimulatedSource(bursts([0] * 20 + [300] * 3), tick_s=tick_s, max_power_w=300.0)
        meter = Meter(Settings.load({}, export="none"), sources=[device], clock=clock)
        found: list[Measurement] = []
        meter.listeners.append(found.append)
        context = contextvars.Context()
        context.run(meter.measured("open").__enter__)
        begun_ns = clock.now_ns()
        clock.advance(0.737)
        assert meter.close()
        truth_j = device.true_energy_j(begun_ns, clock.now_ns())
        assert found[0].energy_low_j is not None
        assert found[0].energy_high_j is not None
        assert found[0].energy_low_j - 1e-6 <= truth_j <= found[0].energy_high_j + 1e-6
        check_totals(meter, [device], clock, behind_s=0.11)
