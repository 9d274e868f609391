"""A small world whose truth is known exactly: devices, regions, and the slow and obvious account of who owes what.

Time is in whole nanoseconds and power in whole watts, so that the true energy is a whole number of nanojoules. The reference
walks through every elementary interval and divides it among the innermost regions, in rational arithmetic.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from impactsdk.energy.curve import Curve
from impactsdk.energy.entry import Entry, Tally
from impactsdk.energy.ledger import Ledger
from impactsdk.energy.segment import Segment, Timeline
from impactsdk.model import Channel

MS = 1_000_000
START_NS = 1_000 * MS
TOP_W = 300
BASE_NJ = 10**14
"""What a counter shows at the beginning, so that a reset is a step down."""


@dataclass
class Device:
    """What a channel's hardware truly does, and what its counter shows of it.

    ``kind``: ``exact`` shows the truth at the instant of reading; ``declared`` and ``observed`` show it as of the last tick,
    which the one tells and the other does not; ``mean`` lags behind by a mean over the last tick, as power averaged by the
    driver and integrated does. Power changes every ``step_ns``, or at ``cuts_ns`` where those are given: spans that *are* the
    burst are the hardest.
    """

    power_w: Sequence[int]
    kind: str = "exact"
    tick_ns: int = 0
    phase_ns: int = 0
    limit: bool = True
    resets_ns: Sequence[int] = ()
    step_ns: int = 5 * MS

    cuts_ns: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.kind == "exact":
            self.tick_ns = 0
        cuts, power_w = sorted({0, *self.cuts_ns}), self.power_w
        self._cuts = [(left_ns, power_w[n % len(power_w)]) for n, left_ns in enumerate(cuts)]
        self._used_nj = [0]
        for (left_ns, watts), (right_ns, _) in itertools.pairwise(self._cuts):
            self._used_nj.append(self._used_nj[-1] + watts * (right_ns - left_ns))
        self.cycle_nj = sum(self.power_w) * self.step_ns

    def true_nj(self, at_ns: int) -> int:
        """Nanojoules since the beginning of time, which lies before :data:`START_NS`."""
        if self.cuts_ns and at_ns >= 0:
            index = bisect.bisect_right(self._cuts, (at_ns, math.inf)) - 1
            return self._used_nj[index] + self._cuts[index][1] * (at_ns - self._cuts[index][0])
        cycles, rest_ns = divmod(at_ns, self.step_ns * len(self.power_w))
        steps, rest_ns = divmod(rest_ns, self.step_ns)
        return cycles * self.cycle_nj + sum(self.power_w[:steps]) * self.step_ns + self.power_w[steps] * rest_ns

    def shown_j(self, at_ns: int) -> float:
        """The counter."""
        if self.kind == "mean":
            parts = 10
            seen = sum(self.true_nj(at_ns - part * self.tick_ns // parts) for part in range(parts)) / parts
        elif self.tick_ns:
            seen = self.true_nj(self._ticked(at_ns))
        else:
            seen = self.true_nj(at_ns)
        lost = max((self.true_nj(reset_ns) for reset_ns in self.resets_ns if reset_ns <= at_ns), default=0)
        return (seen - lost if lost else seen + BASE_NJ) * 1e-9

    def _ticked(self, at_ns: int) -> int:
        return (at_ns - self.phase_ns) // self.tick_ns * self.tick_ns + self.phase_ns

    def channel(self, number: int = 0) -> Channel:
        """As a source would describe it."""
        return Channel(
            id=f"gpu:{number}",
            type="gpu",
            method="world",
            tick_s={"exact": 0.0, "observed": None}.get(self.kind, self.tick_ns * 1e-9),
            max_power_w=float(TOP_W) if self.limit else None,
        )


@dataclass(eq=False)
class Party(Entry):
    """A region, with the reference's own notes beside the ledger's."""

    number: int
    up: Party | None = None
    hides: Party | None = None
    running: bool = True
    alive: bool = True
    asleep: bool = False
    own: list[Fraction] = field(default_factory=list)
    below: list[Fraction] = field(default_factory=list)
    spans_ns: tuple[int, int] = (0, 0)

    def __hash__(self) -> int:
        return id(self)


Event = tuple[int, str, Party, Any, Any]


def played(moves: Sequence[tuple[int, str, int, int]], tallies: int = 3) -> tuple[list[Event], list[Party]]:
    """Turn arbitrary moves into events that regions could make: starts, ends in any order, generators that pause and go on."""
    at_ns, events, parties = START_NS, [], []
    opened: list[Party] = []
    running: list[Party] = []
    paused: list[tuple[Party, Party]] = []

    def inside(party: Party | None, of: Party) -> bool:
        while party is not None and party is not of:
            party = party.parent  # type: ignore[assignment]
        return party is of

    def close(party: Party) -> None:
        events.append((at_ns, "end", party, None, None))
        opened.remove(party)
        if party in running:
            running.remove(party)
        paused[:] = [pair for pair in paused if pair[0] is not party]

    names = [Tally(f"name {number}", None) for number in range(tallies)]
    for wait_ns, what, i, j in moves:
        at_ns += wait_ns
        someone = opened[i % len(opened)] if opened and i % 4 else None
        if what in ("start", "generate"):
            party = Party(len(parties))
            party.parent, party.tally = someone, names[j % len(names)]
            party.open = False
            parties.append(party)
            opened.append(party)
            events.append((at_ns, "start", party, None, someone))
            if what == "generate":
                running.append(party)
        elif what == "end" and opened:
            close(opened[-1 if i % 3 else j % len(opened)])
        elif what == "pause" and running:
            generator = running.pop(j % len(running))
            asleep = {leaf for _, leaf in paused}
            leaves = [party for party in opened if inside(party, generator) and party not in asleep]
            if leaves:
                leaf = leaves[-1]
                paused.append((generator, leaf))
                events.append((at_ns, "pause", generator, leaf, None))
        elif what == "resume" and paused:
            generator, leaf = paused.pop(j % len(paused))
            consumer = someone if someone is not None and not inside(someone, generator) else None
            running.append(generator)
            events.append((at_ns, "resume", generator, leaf if leaf in opened else generator, consumer))
    at_ns += 7 * MS
    for party in reversed(list(opened)):
        close(party)
    return events, parties


class Reference:
    """Who owes what, found by looking at everything at every instant."""

    def __init__(self, devices: Sequence[Device], parties: Sequence[Party]) -> None:
        self.devices, self.parties = devices, parties
        self.unattributed = [Fraction(0)] * len(devices)
        self.now_ns = START_NS
        for party in parties:
            party.own = [Fraction(0)] * len(devices)
            party.below = [Fraction(0)] * len(devices)
            party.alive = party.asleep = False
            party.hides = None

    def innermost(self) -> list[Party]:
        """The regions that nobody hides and that are not asleep in a suspended generator."""
        hidden = {party.hides for party in self.parties if party.alive and party.hides is not None}
        return [party for party in self.parties if party.alive and not party.asleep and party not in hidden]

    def until(self, at_ns: int) -> None:
        owing = self.innermost()
        for index, device in enumerate(self.devices):
            used = Fraction(device.true_nj(at_ns) - device.true_nj(self.now_ns), 10**9)
            for party in owing:
                party.own[index] += used / len(owing)
            if not owing:
                self.unattributed[index] += used
        self.now_ns = at_ns

    def take(self, event: Event) -> None:
        at_ns, what, party, leaf, other = event
        self.until(at_ns)
        other = other if other is not None and other.alive else None
        if what == "start":
            party.alive, party.hides, party.spans_ns = True, other, (at_ns, 0)
        elif what == "end":
            party.alive = False
            party.spans_ns = (party.spans_ns[0], at_ns)
            if party.asleep and party.hides is not None:
                party.hides.asleep = True
            party.hides = None
            parent: Any = party.parent
            if parent is not None and parent.alive:
                parent.below = [a + b + c for a, b, c in zip(parent.below, party.own, party.below, strict=True)]
        elif what == "pause":
            leaf.asleep, party.hides = True, None
        else:
            leaf.asleep, party.hides = False, other


class Books:
    """Curves, timeline and ledger, driven as the session drives them."""

    def __init__(self, devices: Sequence[Device], events: Sequence[Event]) -> None:
        self.devices = devices
        self.curves = [Curve(device.channel(number)) for number, device in enumerate(devices)]
        self.events = list(events)
        self.timeline: Timeline | None = None
        self.ledger: Any = None
        self.segments = 0

    def read(self, number: int, before_ns: int, after_ns: int, *, fails: bool = False) -> None:
        """Poll one device."""
        shown_j = None if fails else self.devices[number].shown_j((before_ns + after_ns) // 2)
        self.curves[number].add(shown_j, before_ns, after_ns)

    def settle(self, now_ns: int, *, final: bool = False) -> None:
        """As ``Session._settle``."""
        if self.timeline is None:
            start_ns = max([curve.knots[0].at_ns for curve in self.curves if curve.knots], default=now_ns)
            self.timeline = Timeline(self.curves, start_ns)
            self.ledger = Ledger(len(self.curves), start_ns)
        segments = list(self.timeline.advance(now_ns, final=final))
        for segment in segments:
            self.ledger.begin(segment)
            everything = final and segment is segments[-1]
            while self.events and self.events[0][0] <= now_ns and (everything or self.events[0][0] <= segment.end_ns):
                self.apply(self.events.pop(0), segment)
            self.ledger.close()
            self.segments += 1

    def apply(self, event: Event, segment: Segment) -> None:
        at_ns, what, party, leaf, other = event
        at_ns = min(at_ns, segment.end_ns)
        if what == "start":
            self.ledger.start(party, party.parent, at_ns)
        elif what == "end":
            self.ledger.end(party, at_ns)
        elif what == "pause":
            self.ledger.pause(party, leaf, at_ns)
        else:
            self.ledger.resume(party, leaf, other, at_ns)


def tallies_j(parties: Sequence[Party], channels: int) -> list[float]:
    """The sum over all names, by channel."""
    tallies = {id(party.tally): party.tally for party in parties}.values()
    return [sum(tally.credits[index] for tally in tallies if tally.credits) for index in range(channels)]


# --- strategies -----------------------------------------------------------------------------------------------------------

powers = st.lists(st.sampled_from([0, 1, 1, 60, TOP_W, TOP_W]), min_size=1, max_size=12)
waits = st.one_of(st.just(0), st.integers(0, 3 * MS), st.integers(0, 120 * MS))
_one = st.sampled_from(["start", "start", "end", "end", "generate", "pause", "resume"]).map(lambda what: [what])
_phrases = st.sampled_from(
    [
        ["generate", "pause", "resume", "pause", "resume", "end"],  # read by a loop
        ["generate", "start", "pause", "resume", "end", "end"],  # it yields inside a region of its own
        ["start", "generate", "pause", "end", "start", "resume", "pause", "end"],  # begun by one consumer, read on by another
        ["generate", "generate", "pause", "pause", "resume", "resume"],
        ["start", "end", "start", "end"],
    ]
)
moves = st.lists(st.one_of(_one, _phrases), max_size=12).flatmap(
    lambda words: st.tuples(
        *[st.tuples(waits, st.just(word), st.integers(0, 30), st.integers(0, 30)) for phrase in words for word in phrase]
    )
)


@st.composite
def devices(draw: st.DrawFn, kinds: Sequence[str] = ("exact", "declared", "observed", "mean"), **given: Any) -> Device:
    """Any device."""
    return Device(
        power_w=draw(powers),
        kind=draw(st.sampled_from(kinds)),
        tick_ns=draw(st.sampled_from([1 * MS, 20 * MS, 37 * MS, 100 * MS])),
        phase_ns=draw(st.integers(0, 100 * MS)),
        limit=draw(st.booleans()),
        **given,
    )
