"""A journal read back: what each operation had used by when, from the OTLP/JSON lines of one run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impactsdk import semconv
from impactsdk.errors import JournalError

__all__ = ["Account", "Moment", "Run", "read"]

_LARGEST = 1e300


@dataclass(slots=True)
class Account:
    """What one operation, or the time outside all of them, has used so far."""

    by_type_j: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    embodied_g: float | None = None
    count: int = 0
    duration_s: float = 0.0
    unit: str | None = None
    units: float | None = None
    counted: int = 0
    """How many of the calls have reported their units."""

    @property
    def energy_j(self) -> float | None:
        """Joules; ``None`` if no device answered."""
        return sum(self.by_type_j.values()) if self.by_type_j else None


@dataclass(slots=True)
class Moment:
    """All accounts at one instant; ``None`` is what belonged to no operation."""

    unix_ns: int
    accounts: dict[str | None, Account] = field(default_factory=dict)
    others_j: float = 0.0
    open_j: float = 0.0
    """Of regions that were still open."""
    channels_j: dict[str, float] = field(default_factory=dict)
    """What the devices had used by then."""
    spans: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Per operation, how many spans were written before these totals, and their own joules together."""


@dataclass(slots=True)
class Run:
    """One run: its resource, its devices' joules, and the accounts as they grew."""

    resource: dict[str, Any]
    channels: dict[str, float]
    natures: set[str]
    moments: list[Moment]
    unread: int = 0
    """Lines that are no requests, but for a last one that is cut off."""
    start_ns: int | None = None
    """Since when its totals count: each run has another instant."""
    until_ns: int = 0
    """The instant of the last totals that were read."""


def read(path: Path) -> Run:
    """Read a journal. A line that is cut off, as the last one of a killed process may be, is left out.

    Where the process was killed before the first totals were written (after about a second), they are added up from its spans;
    regions without a span are then missing.

    Raises:
        JournalError: The file cannot be read, is no journal, or has more than one run in it.
    """
    run = Run({}, {}, set(), [])
    spans = Moment(0)
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                request = _request(line)
                if request is not None:
                    _take(request, run, spans)
                elif line.endswith("\n") and line.strip():
                    run.unread += 1
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror or error}") from None
    except _MixedError as error:
        raise JournalError(f"{path} {error}; a journal has one run in it: take its parts apart again") from None
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise JournalError(f"{path} is no journal of impactsdk: {type(error).__name__}: {error}") from None
    if not run.moments and spans.accounts:
        run.moments.append(spans)
    if not run.moments:
        raise JournalError(f"{path} has no measured operation in it; a journal is a file of OTLP/JSON lines, one run in each")
    return run


class _MixedError(Exception):
    """A file was put together of several."""


def _request(line: str) -> dict[str, Any] | None:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return request if isinstance(request, dict) else None


def _follow(run: Run, point: dict[str, Any]) -> None:
    """Totals of one run count since one instant, and later ones come later."""
    at_ns, start_ns = int(point["timeUnixNano"]), int(point.get("startTimeUnixNano", 0)) or run.start_ns
    if run.start_ns not in (None, start_ns):
        raise _MixedError("has more than one run in it")
    if at_ns < run.until_ns:
        raise _MixedError("has earlier totals after later ones")
    run.start_ns, run.until_ns = start_ns, at_ns


def _take(request: dict[str, Any], run: Run, spans: Moment) -> None:
    for of_resource in request.get("resourceSpans", ()):
        run.resource.update(_attributes(of_resource["resource"]["attributes"]))
        for scope in of_resource["scopeSpans"]:
            for span in scope["spans"]:
                _add_span(span, spans, run)
    for of_resource in request.get("resourceMetrics", ()):
        run.resource.update(_attributes(of_resource["resource"]["attributes"]))
        metrics = {metric["name"]: metric for scope in of_resource["scopeMetrics"] for metric in scope["metrics"]}
        for name in (semconv.METRIC_HW_ENERGY, semconv.METRIC_OPERATION_OWN_TIME):
            for point in _encoded(metrics, name):
                _follow(run, point)
        for at, value, attributes in _points(metrics, semconv.METRIC_HW_ENERGY):
            run.channels[attributes[semconv.HW_ID]] = value
            run.natures.add(attributes[semconv.NATURE])
            spans.unix_ns = max(spans.unix_ns, at)
        if semconv.METRIC_OPERATION_OWN_TIME in metrics:
            run.moments.append(_moment(metrics))
            run.moments[-1].spans = spans.spans.copy()


def _moment(metrics: dict[str, Any]) -> Moment:
    moment = Moment(0)

    def account(attributes: dict[str, Any]) -> Account:
        return moment.accounts.setdefault(attributes.get(semconv.OPERATION), Account())

    for _, value, attributes in _points(metrics, semconv.METRIC_HW_ENERGY):
        moment.channels_j[attributes[semconv.HW_ID]] = value
    for _, value, _ in _points(metrics, semconv.METRIC_OPEN_ENERGY):
        moment.open_j += value
    for _, value, attributes in _points(metrics, semconv.METRIC_ENERGY):
        if attributes[semconv.STATE] == "others":
            moment.others_j += value
        else:
            by_type = account(attributes).by_type_j
            by_type[attributes[semconv.HW_TYPE]] = by_type.get(attributes[semconv.HW_TYPE], 0.0) + value
    for _, value, attributes in _points(metrics, semconv.METRIC_OPERATION_DURATION):
        account(attributes).duration_s += value
    for at, value, attributes in _points(metrics, semconv.METRIC_OPERATION_OWN_TIME):
        account(attributes).seconds += value
        moment.unix_ns = max(moment.unix_ns, at)
    for _, value, attributes in _points(metrics, semconv.METRIC_CARBON):
        if attributes[semconv.IMPACT_SCOPE] == "embodied":
            of = account(attributes)
            of.embodied_g = (of.embodied_g or 0.0) + value
    for _, value, attributes in _points(metrics, semconv.METRIC_OPERATION_COUNT):
        account(attributes).count += int(value)
    for _, value, attributes in _points(metrics, semconv.METRIC_OPERATION_COUNTED):
        account(attributes).counted += int(value)
    for _, value, attributes in _points(metrics, semconv.METRIC_FUNCTIONAL_UNITS):
        of = account(attributes)
        # Two where the unit was named only later.
        of.units, of.unit = (of.units or 0.0) + value, attributes.get(semconv.FUNCTIONAL_UNIT_NAME) or of.unit
    return moment


def _add_span(span: dict[str, Any], moment: Moment, run: Run) -> None:
    attributes = _attributes(span.get("attributes", ()))
    if semconv.OPERATION not in attributes:
        return
    name = attributes[semconv.OPERATION]
    count, own_j = moment.spans.get(name, (0, 0.0))
    moment.spans[name] = count + 1, own_j + _usable(attributes.get(semconv.ENERGY_SELF, 0.0))
    account = moment.accounts.setdefault(name, Account())
    account.count += 1
    account.duration_s += (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) * 1e-9
    account.seconds += attributes.get(semconv.DURATION_SELF, 0.0)
    if semconv.CARBON_EMBODIED in attributes:
        account.embodied_g = (account.embodied_g or 0.0) + attributes[semconv.CARBON_EMBODIED]
    if semconv.FUNCTIONAL_UNIT_COUNT in attributes:
        account.counted += 1
        account.units = (account.units or 0.0) + attributes[semconv.FUNCTIONAL_UNIT_COUNT]
        account.unit = attributes.get(semconv.FUNCTIONAL_UNIT_NAME)
    for key, value in attributes.items():
        kind = key.removeprefix(semconv.ENERGY_TYPE_PREFIX)
        if kind != key and not kind.startswith(("self", "inclusive")):
            account.by_type_j[kind] = account.by_type_j.get(kind, 0.0) + _usable(value)
    if semconv.NATURE in attributes:
        run.natures.add(attributes[semconv.NATURE])
    moment.unix_ns = max(moment.unix_ns, int(span["endTimeUnixNano"]))


def _points(metrics: dict[str, Any], name: str) -> Iterator[tuple[int, float, dict[str, Any]]]:
    for point in _encoded(metrics, name):
        value = point["asDouble"] if "asDouble" in point else point["asInt"]
        yield int(point["timeUnixNano"]), _usable(value), _attributes(point.get("attributes", ()))


def _encoded(metrics: dict[str, Any], name: str) -> list[dict[str, Any]]:
    metric = metrics.get(name)
    points: list[dict[str, Any]] = [] if metric is None else (metric.get("sum") or metric.get("gauge"))["dataPoints"]
    return points


def _usable(value: Any) -> float:
    """A number that can be added to others."""
    number = float(value)
    if not abs(number) < _LARGEST:
        raise ValueError(f"{value} is no amount of anything")
    return number


def _attributes(encoded: Any) -> dict[str, Any]:
    return {item["key"]: _value(item["value"]) for item in encoded}


def _value(encoded: dict[str, Any]) -> Any:
    kind, value = next(iter(encoded.items()), ("empty", None))  # an empty value is legal
    return int(str(value)) if kind == "intValue" else value
