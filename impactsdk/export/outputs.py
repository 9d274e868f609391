"""The outputs of one session, and their end: bounded in time, and what could not be sent is told, counted and kept."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import metrics, trace

from impactsdk.export.journal import Journal
from impactsdk.export.metrics import Account
from impactsdk.export.units import energy
from impactsdk.terminal import say

if TYPE_CHECKING:
    from impactsdk.export.delivery import MetricDelivery, SpanDelivery

__all__ = ["Outputs"]

_TROUBLE = "an exporter could not be shut down: {!r}"
_FOR_SPANS = 0.6
"""The part of the time that spans may take; the rest is for the metrics, which then say how many were lost."""
_LONGEST_S = 86_400.0
_IN_VAIN_S = 1.0
_FOR_THE_REST_S, _FOR_ONE_SPAN_S, _MOST_FOR_THE_REST = 0.1, 3e-4, 0.4
"""What is left for telling and for writing the journal; the last is a part of the whole time."""


def _public(endpoint: str) -> str:
    """An address without the password that may be in it."""
    return re.sub(r"^([a-z+]+://)?.*@", r"\1", endpoint.strip(), flags=re.IGNORECASE).partition("?")[0]


@dataclass(slots=True)
class Outputs:
    """Where one session's results go. ``owned`` are the providers that we made and must shut down."""

    tracer: trace.Tracer | None = None
    meter_providers: list[metrics.MeterProvider] = field(default_factory=list)
    journal: Journal | None = None
    summary: bool = False
    owned: list[Any] = field(default_factory=list)
    used: list[Any] = field(default_factory=list)
    deliveries: list[SpanDelivery] = field(default_factory=list)
    """Where receipts for spans are expected."""
    arrivals: list[MetricDelivery] = field(default_factory=list)
    """Where receipts for metrics are expected."""
    spare: Callable[[Account], Journal] | None = None
    """Makes a journal for what could not be sent."""
    endpoints: tuple[str | None, str | None] = (None, None)
    """Where spans and metrics should have gone, for the message."""
    deadline: float = math.inf
    """The instant of the monotonic clock by which the process wants to be gone."""
    told: int = 0
    """Spans of which :meth:`taken` has said that they were refused."""

    @property
    def dropped(self) -> int:
        """Spans that could not be sent or written so far."""
        unsent = sum(delivery.dropped for delivery in self.deliveries)
        return unsent + (0 if self.journal is None else self.journal.dropped)

    def taken(self) -> bool:
        """Whether no backend has refused spans since this was last asked, or what was last to be sent of metrics."""
        refused, before = sum(delivery.dropped for delivery in self.deliveries), self.told
        self.told = refused
        return refused == before and not any(delivery.refused for delivery in self.arrivals)

    def shut(self, complain: Callable[[str, str], None]) -> bool:
        """Have the owned providers send what is left and let go, until the deadline; say whether all has arrived."""
        now = time.monotonic()
        left_s = min(max(0.0, self.deadline - now), _LONGEST_S)
        kept = sum(len(delivery.kept) for delivery in self.deliveries)
        left_s -= min(_MOST_FOR_THE_REST * left_s, _FOR_THE_REST_S + kept * _FOR_ONE_SPAN_S)
        bounded = [owned for owned in self.owned if hasattr(owned, "begin_shutdown")]
        spans = [owned for owned in bounded if hasattr(owned.provider, "get_tracer")]
        values = [owned for owned in bounded if owned not in spans]
        for phase, share in ((spans, _FOR_SPANS if values else 1.0), (values, 1.0)):
            for owned in phase:
                owned.begin_shutdown()
            for owned in phase:
                owned.wait(now + share * left_s)
            for delivery in self.deliveries:
                delivery.over = True
        for owned in bounded:
            if owned.error is not None:
                complain("shutdown", _TROUBLE.format(owned.error))
        return not any(delivery.dropped for delivery in self.deliveries) and all(delivery.arrived for delivery in self.arrivals)

    def abandon(self, complain: Callable[[str, str], None]) -> None:
        """Measuring could not begin: shut down the owned providers, which have nothing to send."""
        self.deadline = time.monotonic() + _IN_VAIN_S
        self.shut(complain)
        self.let_go(complain)

    def rescue(self, account: Account, books: AbstractContextManager[object]) -> None:
        """Something did not arrive: write it to the journal, which is made if there was none, and say so in one line.

        ``books`` is held while the journal is written that others may write, too.
        """
        unsent = sum(delivery.dropped for delivery in self.deliveries)
        missing_j = math.fsum(delivery.missing_j for delivery in self.deliveries)
        what = [f"{unsent} span{'s' * (unsent != 1)} ({energy(missing_j)})"] if unsent else []
        lacking = dict.fromkeys(delivery.lacking for delivery in self.arrivals if delivery.lacking)
        what += lacking
        spans = [span for delivery in self.deliveries for span in delivery.kept]
        where = ""
        if self.journal is not None:
            with books:
                self.journal.close(account.snapshot())  # once more, with what is known now
            where = f"; everything is in {self.journal.path}"
        elif self.spare is not None:
            self.journal = self.spare(account)
            for span in spans:
                self.journal.add(cast(trace.Span, span))
            self.journal.close(account.snapshot())
            some = "" if not unsent else "they and " if len(spans) >= unsent else f"the last {len(spans)} of them and "
            where = f"; {some}the totals are written to {self.journal.path}"
        if self.journal is not None and self.journal.missing:
            rest = ", all else is there" if self.journal.useful else ""
            where = f", and {self.journal.missing} could not be written to {self.journal.path} either{rest}"
        lost = (bool(unsent), bool(lacking))
        places = dict.fromkeys(_public(place) for place, missing in zip(self.endpoints, lost, strict=True) if missing and place)
        to = f" to {' and '.join(places)}" if places else ""
        say(f"impactsdk: {' and '.join(what)} could not be exported{to}{where}\n")

    def let_go(self, complain: Callable[[str, str], None]) -> None:
        """Shut down the owned providers that send nothing: the journal's."""
        for owned in self.owned:
            if not hasattr(owned, "begin_shutdown"):
                try:
                    owned.shutdown()
                except Exception as error:  # noqa: BLE001 - a mistake there is none of the user's
                    complain("shutdown", _TROUBLE.format(error))
