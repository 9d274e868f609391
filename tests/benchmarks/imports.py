"""What ``import impactsdk`` adds to importing opentelemetry-api alone, in time and in modules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from .table import Table, verdict
from .timing import median

LIMIT_MS = 30.0
_API = "from opentelemetry import context, metrics, trace"
FORBIDDEN = (
    "pynvml",
    "psutil",
    "opentelemetry.sdk",
    "opentelemetry.exporter",
    "numpy",
    "pandas",
    "torch",
    "tensorflow",
    "keras",
    "transformers",
    "tqdm",
)
_SCRIPT = """
import json, sys, time
wall_s, cpu_s = time.perf_counter(), time.process_time()
{statements}
wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
import threading
print(json.dumps([1e3 * wall_s, 1e3 * cpu_s, len(sys.modules), threading.active_count(),
    [name for name in {forbidden} if name in sys.modules]]))
"""


def _once(statements: str, environ: dict[str, str]) -> tuple[float, float, int, int, list[str]]:
    script = _SCRIPT.format(statements=statements, forbidden=repr(FORBIDDEN))
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    wall_ms, cpu_ms, modules, threads, found = json.loads(done.stdout)
    return wall_ms, cpu_ms, modules, threads, found


def run(*, quick: bool = False) -> Iterator[Table]:
    """One table."""
    pairs = 2 if quick else 21
    api, both = [], []
    # Byte code as an installed package has it, and none left in this folder.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as cache:
        environ["PYTHONPYCACHEPREFIX"] = cache
        for turn in range(pairs + 1):
            order = [(api, _API), (both, f"{_API}\nimport impactsdk")]
            for into, statements in order[:: 1 if turn % 2 else -1]:
                into.append(_once(statements, environ))
    del api[0], both[0]  # the first pair writes the byte code
    table = Table("import impactsdk, over opentelemetry-api alone", ["what", "with", "api alone", "added", "limit", ""])
    for index, what in enumerate(("wall ms", "CPU ms")):
        added = median(b[index] - a[index] for a, b in zip(api, both, strict=True))
        cells = [f"{median(each[index] for each in runs):.1f}" for runs in (both, api)]
        table.add(what, *cells, f"{added:.1f}", f"<= {LIMIT_MS:g}", verdict(added, LIMIT_MS))
    table.add("modules", str(both[-1][2]), str(api[-1][2]), str(both[-1][2] - api[-1][2]), "", "")
    table.add(
        "threads", str(both[-1][3]), str(api[-1][3]), str(both[-1][3] - api[-1][3]), "0", verdict(both[-1][3] - api[-1][3], 0)
    )
    found = both[-1][4]
    table.add("forbidden modules", ", ".join(found) or "none", "", "", "none", "over" if found else "ok")
    table.note(f"forbidden: {', '.join(FORBIDDEN)}")
    yield table
