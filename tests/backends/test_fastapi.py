"""A FastAPI service under uvicorn with 200 requests at once: what they cost and what is left over is what the process used."""

from __future__ import annotations

import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.backends.place import ROOT, environment, free_port, get, get_json, listens, packages, process
from tests.kit import journals, plain, spans_in

pytestmark = pytest.mark.backend

REQUESTS = 200

SERVICE = f"""
import sys
sys.path.append({str(ROOT)!r})
from impactsdk import configure
from impactsdk.testing import SimulatedSource
configure(export="journal", sources=[SimulatedSource(280.0, id="gpu:0"), SimulatedSource(60.0, id="cpu:0", type="cpu")])
from examples.fastapi_service import app
import uvicorn
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


def test_concurrent_requests_share_every_joule_once(tmp_path: Path) -> None:
    theirs = packages(environment("fastapi", "fastapi>=0.110", "uvicorn>=0.29"))
    port = free_port()
    (tmp_path / "service.py").write_text(SERVICE, encoding="utf-8")
    at = f"http://127.0.0.1:{port}"
    command = [sys.executable, "service.py", str(port)]
    with process(command, tmp_path, ready=lambda: listens(port), PYTHONPATH=str(theirs)) as service:
        with ThreadPoolExecutor(REQUESTS) as pool:
            answers = list(pool.map(lambda number: get(f"{at}/answer?text={'a+' * number}z"), range(REQUESTS)))
        totals = get_json(f"{at}/totals")
        assert service.poll() is None
    assert [json.loads(answer)["length"] for answer in answers] == [number + 1 for number in range(REQUESTS)]

    operations = totals["operations"]
    assert {name: of["count"] for name, of in operations.items()} == {"answer": REQUESTS, "embed": REQUESTS}
    in_regions = math.fsum(of["energy_j"] for of in operations.values())
    print(totals)
    assert totals["counted_j"] > 0
    assert math.isclose(in_regions + totals["unattributed_j"] + totals["others_j"], totals["counted_j"], rel_tol=1e-9)

    (lines,) = journals(tmp_path)
    requests = [plain(span["attributes"]) for span in spans_in(lines)]
    assert [span["impact.operation"] for span in requests] == ["answer"] * REQUESTS
    own = math.fsum(span["impact.energy.self"] for span in requests)
    inclusive = math.fsum(span["impact.energy.inclusive"] for span in requests)
    assert math.isclose(own, operations["answer"]["energy_j"], rel_tol=1e-9)
    assert math.isclose(inclusive, in_regions, rel_tol=1e-9)
