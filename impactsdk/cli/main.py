"""``impactsdk``: the command line. Each command is a file beside this one."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from impactsdk.cli import check, detect
from impactsdk.errors import ImpactError
from impactsdk.sessions import installed_version

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0: done; 1: nothing to measure with, or no balance; 2: a mistake in the call; 130: interrupted.
    """
    parser = argparse.ArgumentParser(prog="impactsdk", description="What your training and inference code costs.")
    parser.add_argument("--version", action="version", version=f"impactsdk {installed_version()}")
    commands = parser.add_subparsers(dest="command", required=True)
    check.add(commands)
    detect.add(commands)
    arguments = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to end
        sys.stdout.reconfigure(errors="replace")
    try:
        status: int = arguments.run(arguments)
        if sys.stdout is not None:  # it is None where the shell has closed it
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except ImpactError as error:
        print(f"impactsdk: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if sys.stdout is not None:  # else the interpreter complains when it flushes
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # who read has had enough
            return 0
        print(f"impactsdk: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
