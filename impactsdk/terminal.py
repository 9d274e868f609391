"""A few lines for a person, on the standard error; whatever state that is in, nobody else notices."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["say"]


def say(text: str) -> None:
    """Write ``text``, if there is somebody to read it."""
    stream = sys.stderr
    if not text or stream is None:
        return
    with contextlib.suppress(Exception):  # nobody reads it any more, or it is something of the user's that cannot flush
        try:
            text.encode(getattr(stream, "encoding", None) or "ascii")
        except (UnicodeEncodeError, LookupError):  # a terminal that knows no micro sign
            text = text.replace("µ", "u").encode("ascii", "replace").decode()
        stream.write(text)
        stream.flush()
