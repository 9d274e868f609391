"""The sessions of a meter that are being closed, or could not be in time, and what the last one has come to."""

from __future__ import annotations

import contextlib
import time
import warnings
from typing import TYPE_CHECKING

from impactsdk.errors import DegradedWarning
from impactsdk.model import Totals
from impactsdk.terminal import say

if TYPE_CHECKING:
    from impactsdk.session import Session

__all__ = ["Endings", "warn"]

_HURRY_S = 0.05
"""How long to wait for the account of one that hangs: what is left of the time is for the others."""


class Endings:
    """What is still to be waited for and told: a fork, an exit and who closes again after an interrupt find it here."""

    def __init__(self) -> None:
        self._told: dict[Session, bool] = {}  # whether the person at the terminal knows what it has come to
        self._last: Session | None = None
        self.totals = Totals({}, 0.0, 0.0, 0.0, {})
        """Those of the session that began to end last."""

    def __bool__(self) -> bool:
        return bool(self._told)

    def add(self, session: Session) -> None:
        """It is about to be closed."""
        self._told[session], self._last = False, session

    def drop(self, session: Session, timeout_s: float) -> None:
        """Close one that nobody has had."""
        self._told[session] = True
        self._end(session, time.monotonic() + timeout_s)

    def forget(self) -> None:
        """The totals are no longer to be told."""
        self._last, self.totals = None, Totals({}, 0.0, 0.0, 0.0, {})

    def forsake(self) -> None:
        """In the child of a fork: all this is the parent's."""
        for session in self._told:
            session.forsake()
        self._told = {}
        self.forget()

    def close(self, deadline: float, most_s: float) -> bool:
        """Close them all by this instant of the monotonic clock; say whether that was done.

        None is waited for longer than ``most_s`` in all, what others have waited for it before included.
        """
        closed = True
        for session in reversed(tuple(self._told)):  # the latest first: one that was not closed in time may hang
            left_s = most_s - session.waited_s
            if session.over or left_s > 0 or not self._told.get(session, True):
                closed = self._end(session, min(deadline, time.monotonic() + left_s)) and closed
            else:
                closed = False
        return closed

    def _end(self, session: Session, deadline: float) -> bool:
        closed = session.close(max(0.0, deadline - time.monotonic()))
        account = session.snapshot() if closed else session.snapshot(_HURRY_S)
        if session is self._last:
            self.totals = account.totals
        # Closed by a listener, or by the handler of a signal, it may have more to tell once that has returned.
        if (session.over or time.monotonic() >= deadline) and not self._told.get(session, True):
            self._told[session] = True
            if session.summary_wanted:
                try:
                    from impactsdk.export.summary import summarise

                    say(summarise(account, session.journal_path, lacks=session.journal_lacks))
                except Exception as error:  # noqa: BLE001 - a few lines for a person must not cost anybody the end of a program
                    warn(f"the summary could not be written: {error!r}")
        if session.over:
            self._told.pop(session, None)
        return closed


def warn(message: str) -> None:
    """Say that less than the best is done; never raise."""
    with contextlib.suppress(Exception):  # where warnings are errors
        warnings.warn(message, DegradedWarning, stacklevel=2)
