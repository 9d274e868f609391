"""``impactsdk check``: whether the parts of a recorded run add up to what its devices counted."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from impactsdk.report.balance import balance
from impactsdk.settings import Settings

__all__ = ["add"]

_MOST_NAMES = 8


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("check", help="add up the joules of a recorded run", description=__doc__)
    parser.add_argument(
        "journal", type=Path, nargs="?", help="a run-*.jsonl; default: the newest of IMPACTSDK_DIRECTORY, or ./impact"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    journal = arguments.journal
    if journal is None:
        directory = Settings.load().directory
        journals = sorted(directory.glob("run-*.jsonl"), key=lambda path: path.stat().st_mtime)
        if not journals:
            print(f"impactsdk check: there is no journal in {directory}; name one, or measure something first", file=sys.stderr)
            return 2
        journal = journals[-1]
    found = balance(journal)
    print(journal)
    for channel, energy_j in found.channels.items():
        print(f"  {energy_j:16.9f} J  counted by {channel}")
    parts = [
        (found.spans_j, f"own energy of {found.spans} spans"),
        (found.regions_j - found.spans_j, "own energy of regions without a span"),
        (found.open_j, "of regions that were still open"),
        (found.unattributed_j, "outside of all regions"),
        (found.others_j, "of the machine for others"),
    ]
    for energy_j, what in parts:
        print(f"  {energy_j:16.9f} J  {what}")
    if found.later_j > 0:
        print(f"  {found.later_j:16.9f} J  counted after the last totals, and not in them: the process was killed")
    if found.without_span:
        print(f"  calls that have no span here (meant so, sampled, or lost): {_listed(found.without_span)}")
    if found.unread:
        print(f"  {found.unread} line{'s' * (found.unread != 1)} cannot be read; what was written there is left out")
    for trouble in found.troubles:
        print(f"  {trouble}")
    share = abs(found.difference_j) / found.devices_j if found.devices_j else 0.0
    print(
        f"  the parts and the counters differ by {share:.1e} of it: {'it adds up' if found.adds_up else 'it does NOT add up'}"
    )
    return 0 if found.adds_up else 1


def _listed(without_span: dict[str, tuple[int, int]]) -> str:
    ordered = sorted(without_span.items(), key=lambda item: -item[1][0])
    said = ", ".join(f"{name} ({missing} of {calls})" for name, (missing, calls) in ordered[:_MOST_NAMES])
    return said if len(ordered) <= _MOST_NAMES else f"{said} and {len(ordered) - _MOST_NAMES} more"
