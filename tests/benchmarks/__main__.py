"""Run the benchmarks: ``python -m tests.benchmarks [--quick] [NAME ...]`` from the root of the repository.

Each runs in a process of its own, so that none sees the memory or the threads of another. The status tells only whether they
could run: a figure over its limit is printed as ``over``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile

NAMES = ("spans", "regions", "sampler", "imports", "impacts", "crowd", "memory", "accuracy", "conservation", "bert")


def main() -> int:
    """Run the named benchmarks, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, the figures mean nothing")
    parser.add_argument("--here", action="store_true", help="in this process")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"there is no benchmark {name!r}: {', '.join(NAMES)}")
    names = options.names or NAMES
    if options.here:
        for name in names:
            for table in importlib.import_module(f"{__package__}.{name}").run(quick=options.quick):
                print(table, flush=True)
        return 0
    failed = 0
    with tempfile.TemporaryDirectory() as runtime:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("IMPACTSDK_", "OTEL_"))}
        environ["IMPACTSDK_RUNTIME_DIR"] = runtime
        for name in names:
            command = [sys.executable, "-m", __package__ or "tests.benchmarks", "--here", name]
            failed += (
                subprocess.run([*command, "--quick"] if options.quick else command, env=environ, check=False).returncode != 0
            )
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
