"""A meter of your own: a device that knows only watts, as a source of joules.

Run: ``python examples/custom_source.py``
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from impactsdk import Channel, Clock, Meter, Reading, Settings


class WallPlug:
    """A plug that shows watts; its joules are added up here, as a source has to answer with a counter.

    This one makes its watts up. For a real one, ask it in :meth:`_power_w`.
    """

    name = "plug"

    def __init__(self) -> None:
        self._joules = 0.0
        self._clock: Clock | None = None
        self._before_ns = 0
        self._before_w = 0.0

    def open(self, clock: Clock) -> Sequence[Channel]:
        """Begin to add up; say what can be read."""
        self._clock, self._before_ns = clock, clock.now_ns()
        self._before_w = self._power_w()
        return [Channel(id="plug:0", type="enclosure", method="plug.watts", tick_s=0.0, nature="calculated")]

    def read(self) -> Iterator[Reading]:
        """The joules so far, by the trapezoid between two readings."""
        assert self._clock is not None
        now_ns, power_w = self._clock.now_ns(), self._power_w()
        self._joules += (power_w + self._before_w) / 2 * (now_ns - self._before_ns) * 1e-9
        self._before_ns, self._before_w = now_ns, power_w
        yield Reading("plug:0", self._joules)

    def close(self) -> None:
        """Nothing to let go of."""

    def _power_w(self) -> float:
        assert self._clock is not None
        return 200.0 + 50.0 * math.sin(self._clock.now_ns() * 1e-9)


def main() -> None:
    """Measure a job with the plug alone."""
    with Meter(Settings.load(export="none"), sources=[WallPlug()]) as meter:
        with meter.measured("job") as job:
            sum(number**0.5 for number in range(2_000_000))
        cost = job.result()
        if cost.energy_j is None:
            print(f"{cost.duration_s:.2f} s, joules unknown")  # a reading failed, or measuring is switched off
            return
        print(f"{cost.duration_s:.2f} s, {cost.energy_j:.1f} J, {cost.power_w:.0f} W, {cost.nature} by {cost.method}")


if __name__ == "__main__":
    main()
