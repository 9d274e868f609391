"""The exporters that the ``OTEL_*`` variables name, found through the entry points that the SDK itself uses.

Endpoints, headers, time-outs, certificates, queue sizes and intervals are read by the exporters and processors themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Literal

__all__ = ["Signal", "endpoint", "exporter", "named"]

Signal = Literal["traces", "metrics"]
_EXTRAS = {"otlp_proto_http": "otlp", "otlp_proto_grpc": "otlp-grpc"}
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_Complain = Callable[[str, str], None]


def endpoint(environ: Mapping[str, str], signal: Signal) -> str | None:
    """Where the variables say that OTLP of this signal goes; ``None`` if none says so."""
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        value = environ.get(variable, "").strip()
        if value:
            return value
    return None


def named(environ: Mapping[str, str], signal: Signal, *, default: bool) -> list[str]:
    """What ``OTEL_TRACES_EXPORTER`` or ``OTEL_METRICS_EXPORTER`` says; nothing said is OTLP if that is the ``default``."""
    words = [word.strip() for word in environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").split(",")]
    words = list(dict.fromkeys(word for word in words if word))
    if not words:
        return ["otlp"] if default else []
    return [word for word in words if word != "none"]


def exporter(environ: Mapping[str, str], signal: Signal, name: str, complain: _Complain) -> Any:
    """An exporter (or a metric reader) by its name; ``None``, and a complaint, if it is not to be had."""
    entry = _protocol(environ, signal, complain) if name == "otlp" else name
    found = list(entry_points(group=f"opentelemetry_{signal}_exporter", name=entry))
    extra = _EXTRAS.get(entry)
    try:
        if not found:
            raise ImportError(f"no entry point {entry!r}")
        return found[0].load()()
    except ImportError:
        remedy = f"pip install 'impactsdk[{extra}]'" if extra else f"look at OTEL_{signal.upper()}_EXPORTER"
        what = "OTLP" if name.startswith("otlp") else repr(name)
        complain(
            extra or f"exporter:{name}",
            f"results should go out over {what}, but its exporter is not installed: {remedy}; "
            "they are written to the journal instead",
        )
    except Exception as error:  # noqa: BLE001 - a variable that it cannot read, or a mistake of its own
        complain(f"exporter:{name}", f"the exporter {name!r} could not be made ({error!r}); the journal is written instead")
    return None


def _protocol(environ: Mapping[str, str], signal: Signal, complain: _Complain) -> str:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        value = environ.get(variable, "").strip().lower()
        if value in _PROTOCOLS:
            return _PROTOCOLS[value]
        if value:
            complain(variable, f"{variable}={value!r}: expected {' or '.join(_PROTOCOLS)}; http/protobuf is used")
            break
    return _PROTOCOLS["http/protobuf"]
