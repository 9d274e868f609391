"""The commands end as a shell expects it: a status, results on stdout, what is wrong on stderr."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from impactsdk.cli import detect
from impactsdk.cli.main import main


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e10"])
def test_a_time_that_nobody_can_sleep_is_refused_with_a_sentence(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", f"--seconds={seconds}"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "impactsdk detect: --seconds: expected a number of seconds > 0 and <= 86400\n"


def test_an_interrupt_ends_a_command_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setenv("IMPACTSDK_SOURCES", "none")
        patch.setattr(detect, "time", SimpleNamespace(sleep=interrupted))
        assert main(["detect"]) == 130
    assert capsys.readouterr().out == ""
