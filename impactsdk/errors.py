"""Everything that impactsdk raises or warns about, as one tree.

::

    ImpactError
    ├── ConfigurationError (ValueError)    a setting, a name or a number that cannot be used
    ├── RegionError (RuntimeError)         a region asked for something that its state does not allow
    ├── JournalError (ValueError)          a recorded run cannot be read
    ├── SettleTimeoutError (TimeoutError)  the reading that covers a region did not come in time
    └── SourceError
        ├── SourceUnavailableError         this machine has no such device, or it may not be read
        └── SourceFailedError              a device that worked has stopped working

    UserWarning
    └── DegradedWarning                    a number is less good than it could be, and why

Errors are raised only where a person has made a mistake that they can mend at once. A device, an exporter or a backend that
fails costs one :class:`DegradedWarning` and a truthful ``quality``; the measured code never sees it.
"""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "DegradedWarning",
    "ImpactError",
    "JournalError",
    "RegionError",
    "SettleTimeoutError",
    "SourceError",
    "SourceFailedError",
    "SourceUnavailableError",
]


class ImpactError(Exception):
    """The root of every error that impactsdk raises."""


class ConfigurationError(ImpactError, ValueError):
    """A setting, a name or a number cannot be used; the message says where it came from and what was expected."""


class RegionError(ImpactError, RuntimeError):
    """A region was asked for something that its state does not allow, such as the result of one that is still open."""


class JournalError(ImpactError, ValueError):
    """A recorded run cannot be read; the message says why."""


class SettleTimeoutError(ImpactError, TimeoutError):
    """The device reading that covers a region did not arrive in time."""


class SourceError(ImpactError):
    """A source of energy readings cannot do its work."""


class SourceUnavailableError(SourceError):
    """This machine has no such device, or it may not be read.

    ``expected`` tells an absence that needs no word (a laptop without a GPU) from one that the user may want to mend (a
    counter that only root may read).
    """

    def __init__(self, message: str, *, expected: bool = False) -> None:
        super().__init__(message)
        self.expected = expected


class SourceFailedError(SourceError):
    """A device that worked has stopped working for good; its channels end here."""


class DegradedWarning(UserWarning):
    """A number is less good than it could be: the message says which, why, and what would make it better."""
