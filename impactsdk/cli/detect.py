"""``impactsdk detect``: what can be measured on this machine, by which method, and what would make it better."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from typing import Any

from impactsdk.meter import Meter
from impactsdk.settings import Settings

__all__ = ["add"]

_LONGEST_S = 86_400.0


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("detect", help="show what can be measured here, and how", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to look at the power (default: 1)")
    parser.add_argument("--boundary", choices=("process", "cgroup", "machine"), help="default: IMPACTSDK_BOUNDARY, or process")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.seconds <= _LONGEST_S:
        print(f"impactsdk detect: --seconds: expected a number of seconds > 0 and <= {_LONGEST_S:.0f}", file=sys.stderr)
        return 2
    settings = Settings.load(export="none", boundary=arguments.boundary)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Meter(settings) as meter:
            with meter.measured("detect", span=False) as region:
                time.sleep(arguments.seconds)
            found = region.result()
            session: Any = meter.session
            snapshot = None if settings.disabled else session.snapshot()
    if snapshot is None:
        print("measuring is disabled (IMPACTSDK_DISABLED or OTEL_SDK_DISABLED)")
        return 1
    for channel in snapshot.channels:
        power_w = snapshot.power_w.get(channel.id)
        shown = "unknown" if power_w is None else f"{power_w:.1f} W"
        name = f"  {channel.name}" if channel.name else ""
        print(f"{channel.id}  {channel.type}  {channel.method}  {channel.nature}  {channel.sharing}  {shown}{name}")
    if not snapshot.channels:
        print("nothing can be measured here")
    elif found.energy_j is not None:
        print(f"this process over {found.duration_s:.2f} s: {found.energy_j:.3g} J, quality {found.quality}")
    place = session.place
    print(f"place: {f'{place.name} ({place.code}), from {place.set_by}' if place else 'unknown'}")
    for factor in snapshot.rates.factors:
        known = factor.low is not None and factor.high is not None and factor.low != factor.high
        spread = f"  ({factor.low:.4g} to {factor.high:.4g})" if known else ""
        print(f"factor: {factor}{spread}")
    for kind, reason in snapshot.rates.reasons.items():
        print(f"unknown: {kind}: {reason}")
    for warning in caught:
        print(f"note: {warning.message}")
    return 0 if snapshot.channels else 1
