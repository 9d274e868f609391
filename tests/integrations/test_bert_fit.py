"""``opentelemetry-instrument`` around the plain Keras form of the reference workload, in which no word is about energy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integrations.frameworks import needs

ROOT = Path(__file__).parents[2]


def test_the_plain_example_says_nothing_of_us() -> None:
    code = (ROOT / "examples" / "bert" / "fit.py").read_text("utf-8").split('"""', 2)[2]
    assert "impact" not in code
    assert "measured" not in code


@pytest.mark.bert
@needs("tensorflow", "tf_keras", "transformers", "opentelemetry.instrumentation.auto_instrumentation", "opentelemetry.distro")
def test_its_fit_and_each_epoch_are_spans_with_energy_though_nothing_in_it_was_changed(tmp_path: Path) -> None:
    code = f"import sys; sys.path.append({str(ROOT)!r}); from examples.bert.fit import main; main(epochs=2, limit=64)"
    environment = {
        **os.environ,
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "IMPACTSDK_SOURCES": "cpu_model",
        "HF_HUB_OFFLINE": "1",
    }
    command = Path(sys.executable).with_name("opentelemetry-instrument")
    ran = subprocess.run(
        [str(command), sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    spans = ran.stdout.split('"name": "')[1:]
    named = {span.split('"', 1)[0]: span for span in spans}
    assert {"keras.fit", "keras.epoch", "keras.evaluate"} <= set(named)
    for span in (named[name] for name in ("keras.fit", "keras.epoch", "keras.evaluate")):
        assert '"impact.energy.self"' in span
        assert '"impact.functional_unit.count"' in span
