"""``EnergySpanProcessor``: joules on the spans that other instrumentations make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impactsdk.foreign import HoldingProcessor
from impactsdk.meter import Meter, default_meter

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

__all__ = ["EnergySpanProcessor"]


class EnergySpanProcessor(HoldingProcessor):
    """Gives every span that passes the ``impact.*`` attributes of the time it covered, then hands it to ``next_processor``.

    Put it where the exporting processor would stand::

        provider.add_span_processor(EnergySpanProcessor(BatchSpanProcessor(exporter)))

    A span is held until readings cover its end, usually less than 225 ms; it then goes on as a copy with more attributes. Our
    own spans pass unchanged: they carry their energy already. A span of generative inference that says how many tokens it
    produced (``gen_ai.usage.output_tokens``) has them as its functional unit, and so has the measured region around it if that
    has none of its own. Spans that were not sampled are not seen, and their energy belongs to what is around them.

    Args:
        next_processor: Gets the spans.
        meter: What measures; the default meter if it is not given.
    """

    def __init__(self, next_processor: SpanProcessor, meter: Meter | None = None) -> None:
        super().__init__(next_processor, default_meter() if meter is None else meter)
