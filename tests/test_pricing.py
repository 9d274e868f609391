"""Factors that change while something is measured: every joule is priced once, at what held when it was used."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactsdk import Impact, Measurement, Meter, Settings, Totals
from impactsdk.factor import Factor, Place
from impactsdk.impact import NOTHING, Use, added, impact_of
from impactsdk.pricing import Priced, Pricing
from impactsdk.rates import Rates, mixed, rates_of
from impactsdk.testing import FakeClock, SimulatedSource, capture

GRAMS = (100.0, 500.0, 30.0, 800.0)
FIELDS = ("carbon_g", "embodied_g", "cost", "compute_cost", "margin", "sci_g_per_unit")
NEAR = 1e-9


def rates(intensity: float, price: float = 0.25) -> Rates:
    factors = [
        Factor("carbon_intensity", intensity, "g{CO2e}/(kW.h)", "live", low=intensity / 2, high=intensity * 2),
        Factor("price", price, "{USD}/(kW.h)", "live"),
        Factor("embodied", 1e6, "g{CO2e}", "user"),
        Factor("purchase_price", 9e3, "{USD}", "user"),
        Factor("lifetime", 4.0, "a", "user"),
        Factor("unit_value", 0.5, "{USD}", "user"),
    ]
    return rates_of(factors, currency="USD")


def sum_of(uses: Sequence[Use]) -> Use:
    energy_j, low_j, high_j, seconds, units = (math.fsum(use[index] or 0.0 for use in uses) for index in range(5))  # type: ignore[misc]
    return Use(energy_j, low_j, high_j, seconds, units)


def sum_at(pieces: Sequence[tuple[Use, Rates]]) -> Impact:
    first, *rest = [impact_of(use._replace(units=use.units or 0.0), made) for use, made in pieces]
    for one in rest:
        first = added(first, one)
    return added(first, impact_of(NOTHING._replace(units=0.0), pieces[-1][1]), units=sum_of([use for use, _ in pieces]).units)


def same(one: Impact, other: Impact) -> None:
    for name in FIELDS:
        a, b = getattr(one, name), getattr(other, name)
        assert a == b if a is None or b is None else math.isclose(a, b, rel_tol=NEAR, abs_tol=1e-9), name
    for name in ("carbon_g", "embodied_g", "cost"):
        assert one.intervals[name] == pytest.approx(other.intervals[name], rel=NEAR, abs=1e-9)


# --- an account --------------------------------------------------------------------------------------------------------------

any_rates = st.builds(rates, st.floats(0, 1e3), st.floats(0, 2))


@st.composite
def any_use(draw: st.DrawFn) -> Use:
    low, value, high = sorted(draw(st.lists(st.floats(0, 1e7), min_size=3, max_size=3)))
    return Use(value, low, high, draw(st.floats(0, 1e5)), draw(st.none() | st.integers(0, 100).map(float)))


pieces_at_rates = st.lists(st.tuples(any_use(), any_rates, st.booleans()), min_size=1, max_size=12)


@given(pieces_at_rates)
def test_an_account_is_the_sum_of_its_pieces_at_their_own_rates(pieces: list[tuple[Use, Rates, bool]]) -> None:
    account, uses = Priced(), []
    for use, made, apart in pieces:
        uses.append(use)
        if apart:
            account.put_apart(use, made)
        else:
            account.put_by(sum_of(uses), made)
    # What is left to be priced now is the rounding of sums of up to 1e8 J: at no rate out of proportion.
    same(account.impact(sum_of(uses), rates(1e3)), sum_at([(use, made) for use, made, _ in pieces]))


@given(pieces_at_rates, any_use())
def test_asking_an_account_changes_nothing(pieces: list[tuple[Use, Rates, bool]], last: Use) -> None:
    asked, unasked = Priced(), Priced()
    uses: list[Use] = []
    for use, made, _ in pieces:
        uses.append(use)
        for account in (asked, unasked):
            account.put_by(sum_of(uses), made)
        asked.impact(sum_of([*uses, last]), rates(77))
    assert asked.impact(sum_of(uses), rates(88)) == unasked.impact(sum_of(uses), rates(88))


def test_an_account_that_had_used_nothing_is_known_after_a_change() -> None:
    account = Priced()
    account.put_by(Use(None, None, None, 0.0), rates(100))
    assert account.impact(Use(None, None, None, 0.0), rates(500)).carbon_g is None
    whole = Use(3.6e6, 3.6e6, 3.6e6, 10.0)
    same(account.impact(whole, rates(500)), impact_of(whole, rates(500)))
    account.put_apart(whole, rates(300))
    assert account.impact(whole, rates(500)).carbon_g == pytest.approx(300)


def test_units_of_pieces_priced_apart_make_one_sci_and_one_margin() -> None:
    account, piece = Priced(), Use(3.6e6, 3.6e6, 3.6e6, 0.0, 10.0)
    account.put_apart(piece, rates(100))
    account.put_apart(piece._replace(units=None), rates(500))
    both = Use(7.2e6, 7.2e6, 7.2e6, 0.0, 10.0)
    whole = account.impact(both, rates(800))
    assert whole.sci_g_per_unit == pytest.approx(600 / 10)
    assert whole.margin == pytest.approx(10 * 0.5 - 2 * 0.25)
    assert account.impact(both._replace(units=None), rates(800)).margin is None


def test_what_factors_are_told_does_not_grow_with_their_changes() -> None:
    account = Priced()
    for number in range(1, 300):
        account.put_by(Use(float(number), 0.0, float(number), float(number)), rates(float(number)))
    factors = account.impact(Use(300.0, 0.0, 300.0, 300.0), rates(300)).factors
    assert len(factors) <= 64
    assert {factor.value for factor in factors if factor.kind == "carbon_intensity"} >= set(map(float, range(290, 301)))
    assert {factor.kind for factor in factors} >= {"embodied", "lifetime", "price"}


seen_pieces = st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e3, 1e3), st.booleans(), any_rates), min_size=1, max_size=12)


@given(seen_pieces)
def test_the_truth_of_a_use_that_is_seen_between_two_ticks_is_within_its_interval(
    pieces: list[tuple[float, float, bool, Rates]],
) -> None:
    """What is seen too much of before an instant is seen too little of after it."""
    account, true_j = Priced(), 0.0
    low_cost, high_cost = 0.0, 0.0
    for used_j, off_j, apart, made in pieces:
        (band,) = [line.per_j for line in made.lines if line.name == "cost"]
        assert band is not None
        low_cost, high_cost, true_j = low_cost + used_j * band[0], high_cost + used_j * band[2], true_j + used_j
        covered_j = account.covered.energy_j or 0.0
        if apart:
            part_j = max(0.0, used_j + off_j)
            account.put_apart(
                Use(part_j, part_j, part_j, 1.0), made, blur=(max(0.0, part_j - used_j), max(0.0, used_j - part_j))
            )
        else:
            seen_j = max(covered_j, true_j + off_j)
            use = Use(seen_j, seen_j, seen_j, account.covered.seconds + 10.0)
            account.put_by(use, made, blur=(max(0.0, seen_j - true_j), max(0.0, true_j - seen_j)))
        found = account.impact(account.covered, made)
        low, high = found.intervals["cost"]
        assert high is not None
        assert low <= low_cost + 1e-6
        assert high_cost <= high + 1e-6
        for name in ("cost", "carbon_g", "embodied_g", "compute_cost"):
            least, most = found.intervals[name]
            assert most is not None
            assert least <= getattr(found, name) * (1 + NEAR) + NEAR
            assert getattr(found, name) <= most * (1 + NEAR) + NEAR


@pytest.mark.parametrize("known_first", [True, False])
def test_an_end_that_is_known_of_only_one_of_two_instants_is_unknown_of_the_piece_between(known_first: bool) -> None:
    known, unknown = Use(10.0, -5.0, 15.0, 1.0), Use(20.0, None, None, 2.0)
    if not known_first:
        known, unknown = known._replace(energy_j=20.0, seconds=2.0), unknown._replace(energy_j=10.0, seconds=1.0)
    account, (first, last) = Priced(), (known, unknown) if known_first else (unknown, known)
    account.put_by(first, rates(100.0, price=3.6e6))
    low, high = account.impact(last, rates(100.0, price=7.2e6)).intervals["cost"]
    assert (low, high) == (0.0, None)


def test_what_ended_long_ago_stays_known_when_a_provider_falls_silent() -> None:
    """Of an account without an upper end, or one of many pieces, no more than rounding is left to be priced."""
    silent = rates_of([], currency="USD")
    for high_j in (None, 0.3):
        account = Priced()
        account.put_apart(Use(0.1, 0.1, high_j and 0.1, 0.1), rates(100))
        account.put_apart(Use(0.2, 0.2, high_j and 0.2, 0.2), rates(500))
        whole = Use(0.3, 0.3, high_j, 0.3)
        assert account.impact(whole, silent).cost is not None
        account.put_by(whole, silent)
        assert account.impact(whole, silent).cost is not None
    account.put_by(Use(0.4, 0.4, 0.4, 0.4), silent)
    assert account.impact(Use(0.4, 0.4, 0.4, 0.4), rates(100)).cost is None


# --- the epochs --------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 50), any_rates), min_size=1, max_size=8),
    st.integers(0, 400),
    st.integers(0, 200),
)
def test_what_lasts_over_changes_has_the_mean_weighted_by_time(
    epochs: list[tuple[int, Rates]], start_ns: int, lasts_ns: int
) -> None:
    pricing, at_ns = Pricing(), 0
    held: list[Rates] = []
    for length, made in epochs:
        pricing.turn(at_ns, made, [])
        held += [made] * length
        at_ns += length
    held += [epochs[-1][1]] * 1_000
    found = pricing.rates_between(start_ns, start_ns + lasts_ns)
    expected = mixed([(1.0, made) for made in held[start_ns : start_ns + max(1, lasts_ns)]])
    same(impact_of(Use(1e6, 9e5, 2e6, 50.0, 3.0), found), impact_of(Use(1e6, 9e5, 2e6, 50.0, 3.0), expected))


def test_what_began_after_the_last_change_has_the_very_rates_that_hold() -> None:
    pricing = Pricing()
    assert pricing.rates_between(0, 10) is pricing.rates
    for at_ns, grams in ((0, 100.0), (10, 500.0)):
        pricing.turn(at_ns, rates(grams), [])
    assert pricing.rates_between(10, 20) is pricing.rates
    assert pricing.rates_between(2, 8).lines == rates(100.0).lines


# --- a meter, over a grid that changes ---------------------------------------------------------------------------------------


class Grid:
    """A provider whose figure changes with the wall clock."""

    name = "grid"
    trouble: str | None = None

    def __init__(self, every_s: float = 3.0) -> None:
        self._every_ns = round(every_s * 1e9)

    def factors(self, *, place: Place | None, unix_ns: int) -> Sequence[Factor]:
        return [Factor("carbon_intensity", GRAMS[unix_ns // self._every_ns % len(GRAMS)], "g{CO2e}/(kW.h)", "grid")]

    def close(self) -> None:
        pass


Work = Callable[[Meter, FakeClock], None]


def one_after_another(meter: Meter, clock: FakeClock) -> None:
    for _ in range(25):
        with meter.measured("x"):
            clock.advance(0.4)
        clock.advance(0.1)


def one_that_lasts(meter: Meter, clock: FakeClock) -> None:
    with meter.measured("x", unit="step") as region:
        clock.advance(10.0)
        region.add_units(5)


def nested(meter: Meter, clock: FakeClock) -> None:
    with meter.measured("outer"):
        for _ in range(4):
            with meter.measured("middle", unit="step") as region:
                clock.advance(0.7)
                for _ in range(3):
                    with meter.measured("inner", span=False):
                        clock.advance(0.4)
                region.add_units(2)
            clock.advance(0.3)


def generators(meter: Meter, clock: FakeClock) -> None:
    @meter.measured("produce")
    def produce() -> Iterator[int]:
        for number in range(5):
            clock.advance(0.5)
            yield number

    with meter.measured("consume"):
        for _ in produce():
            clock.advance(0.9)


def threads(meter: Meter, clock: FakeClock) -> None:
    steps = [threading.Barrier(4) for _ in range(2)]

    def work(number: int) -> None:
        with meter.measured(f"thread {number}"):
            steps[0].wait()
            steps[1].wait()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    steps[0].wait()
    clock.advance(7.0)
    steps[1].wait()
    for worker in workers:
        worker.join()


def tasks(meter: Meter, clock: FakeClock) -> None:
    async def work(number: int) -> None:
        async with meter.measured(f"task {number}", span=False):
            await asyncio.sleep(0)
            clock.advance(1.3)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(work(number) for number in range(4)))

    asyncio.run(all_of_them())


WORKS = (one_after_another, one_that_lasts, nested, generators, threads, tasks)
POWERS: dict[str, float | Callable[[float], float]] = {"steady": 100.0, "rising": lambda second: 50.0 + 10.0 * second}


def measured(work: Work, power_w: float | Callable[[float], float]) -> tuple[list[Measurement], Impact, Totals]:
    """All regions, the impact of what is nobody's, and the totals."""
    clock = FakeClock()
    settings = Settings.load({}, export="none", embodied_kg=1_000, lifetime_years=4)
    meter = Meter(settings, sources=[SimulatedSource(power_w)], factors=[Grid()], clock=clock)
    with meter, capture(meter=meter) as captured:
        work(meter, clock)
        clock.advance(1.5)
        meter.flush()
        account = meter.session.snapshot()  # type: ignore[union-attr]
        return list(captured), account.unattributed, account.totals


def grams(impacts: Sequence[Impact], field: str = "carbon_g") -> float:
    values = [getattr(impact, field) for impact in impacts]
    assert None not in values
    return math.fsum(values)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("work", WORKS)
def test_operations_are_the_sum_of_their_regions_while_the_grid_changes(work: Work, power: str) -> None:
    regions, _, totals = measured(work, POWERS[power])
    assert len({factor.value for region in regions for factor in region.self_impact.factors}) > 1, "nothing has changed"
    for name, operation in totals.operations.items():
        own = [region.self_impact for region in regions if region.name == name]
        for field in ("carbon_g", "embodied_g"):
            assert getattr(operation.impact, field) == pytest.approx(grams(own, field), rel=NEAR)
        if operation.units:
            sci = (operation.impact.carbon_g or 0.0) + (operation.impact.embodied_g or 0.0)
            assert operation.impact.sci_g_per_unit == pytest.approx(sci / operation.units)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("work", WORKS)
def test_the_totals_are_the_regions_and_what_is_nobodys_while_the_grid_changes(work: Work, power: str) -> None:
    regions, unattributed, totals = measured(work, POWERS[power])
    for field in ("carbon_g", "embodied_g"):
        parts = grams([*(region.self_impact for region in regions), unattributed], field)
        assert getattr(totals.impact, field) == pytest.approx(parts, rel=NEAR)


def test_a_region_across_a_change_is_priced_with_the_mean_over_its_time() -> None:
    ((region,), _, totals) = measured(one_that_lasts, 100.0)
    carbon_g, joules = region.self_impact.carbon_g, region.self_energy_j
    assert carbon_g is not None and joules is not None
    assert min(GRAMS) < carbon_g / joules * 3.6e6 < max(GRAMS)
    assert totals.operations["x"].impact.carbon_g == pytest.approx(carbon_g, rel=NEAR)
    assert region.impact == region.self_impact


# --- intervals of many calls together -----------------------------------------------------------------------------------------


def _carbon_j(impact: Impact) -> tuple[float, float]:
    """The ends of the carbon's interval as joules, at 100 g/kWh."""
    low_g, high_g = impact.intervals["carbon_g"]
    assert high_g is not None
    return low_g * 36_000.0, high_g * 36_000.0


def test_the_interval_of_many_short_calls_that_are_themselves_the_load_holds_what_they_used() -> None:
    """300 W for the 5 ms of each request and 60 W between: a counter that ticks each 100 ms cannot tell."""
    clock = FakeClock()
    source = SimulatedSource(lambda second: 300.0 if second % 0.1 < 0.005 else 60.0, tick_s=0.1, max_power_w=300.0)
    settings = Settings.load({}, export="none", carbon_intensity_g_per_kwh=100.0)
    with Meter(settings, sources=[source], clock=clock) as meter:
        for _ in range(50):
            with meter.measured("request", span=False):
                clock.advance(0.005)
            clock.advance(0.095)
        clock.advance(1.0)
        assert meter.flush()
        totals = meter.totals()
    low_j, high_j = _carbon_j(totals.operations["request"].impact)
    all_low_j, all_high_j = _carbon_j(totals.impact)
    assert low_j <= 50 * 300.0 * 0.005 <= high_j <= all_high_j
    assert all_low_j <= totals.attributed_j + totals.unattributed_j <= all_high_j


@pytest.mark.parametrize("tick_s", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("step_s", [0.007, 0.05, 0.3])
def test_the_interval_of_steps_that_follow_each_other_is_no_wider_than_that_of_a_few_ticks(
    tick_s: float, step_s: float
) -> None:
    """Where one ends the next begins: what the counter is off there cancels out."""
    clock = FakeClock()
    source = SimulatedSource(lambda second: 300.0 if second % 0.7 < 0.2 else 60.0, tick_s=tick_s, max_power_w=300.0)
    settings = Settings.load({}, export="none", carbon_intensity_g_per_kwh=100.0)
    with Meter(settings, sources=[source], clock=clock) as meter:
        clock_ns = clock.now_ns()
        with meter.measured("epoch", span=False) as epoch:
            for _ in range(round(6.0 / step_s)):
                with meter.measured("step", span=False):
                    clock.advance(step_s)
        clock.advance(1.0)
        used_j = source.true_energy_j(clock_ns, epoch.exit_ns)  # type: ignore[arg-type]
        assert meter.flush()
        operations = meter.totals().operations
    low_j, high_j = _carbon_j(operations["step"].impact)
    assert low_j <= used_j <= high_j
    assert high_j - low_j <= 0.02 * used_j + 8 * 300.0 * max(tick_s, 0.1)
    own_low_j, own_high_j = _carbon_j(operations["epoch"].impact)
    assert own_low_j == 0.0
    assert own_high_j <= 8 * 300.0 * max(tick_s, 0.1)


def test_units_that_an_epoch_and_its_steps_both_count_are_counted_once_in_all() -> None:
    clock = FakeClock()
    settings = Settings.load({}, export="none", carbon_intensity_g_per_kwh=100.0)
    with Meter(settings, sources=[SimulatedSource(100.0)], clock=clock) as meter:
        with meter.measured("epoch", unit="sample") as epoch:
            for _ in range(10):
                with meter.measured("step", span=False, unit="sample") as step:
                    clock.advance(0.1)
                    step.add_units(16)
                    epoch.add_units(16)
        with meter.measured("serve", unit="sample") as serve:
            serve.add_units(40)
        clock.advance(0.5)
        assert meter.flush()
        impact = meter.totals().impact
    assert impact.sci_g_per_unit == pytest.approx(((impact.carbon_g or 0.0) + (impact.embodied_g or 0.0)) / 200)


def test_the_interval_of_regions_that_a_task_outlives_holds_what_they_used() -> None:
    """As with ``asyncio.create_task``: a region whose energy is all used before what it has begun hides it."""
    clock = FakeClock()
    source = SimulatedSource(lambda second: 300.0 if second % 0.1 < 0.005 else 10.0, tick_s=0.1, max_power_w=300.0)
    settings = Settings.load({}, export="none", carbon_intensity_g_per_kwh=100.0)
    used_j = 0.0
    with Meter(settings, sources=[source], clock=clock) as meter:
        for _ in range(100):
            begun_ns = clock.now_ns()
            with meter.measured("outer", span=False):
                task = contextvars.copy_context()
                clock.advance(0.005)
                used_j += source.true_energy_j(begun_ns, clock.now_ns())
                inner = meter.measured("inner", span=False)
                task.run(inner.__enter__)
                clock.advance(0.095)
            task.run(inner.__exit__, None, None, None)
        clock.advance(1.0)
        assert meter.flush()
        low_j, high_j = _carbon_j(meter.totals().operations["outer"].impact)
    assert low_j <= used_j <= high_j
