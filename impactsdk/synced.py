"""Regions that wait for the accelerators at both ends, so that what was launched inside is done inside."""

from __future__ import annotations

from types import TracebackType

from impactsdk.barrier import wait_for_devices
from impactsdk.region import Region
from impactsdk.spanned import SpanRegion

__all__ = ["Synced", "SyncedSpan"]


class Synced(Region):
    """A region of ``measured(sync=True)``. The waiting before it is not part of it; that at its end is."""

    __slots__ = ()

    def __enter__(self) -> Region:
        waited = self._wait()
        region = super().__enter__()
        region.synced = waited
        return region

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            self._wait()
        finally:  # where an interrupt mostly comes
            super().__exit__(kind, error, traceback)

    def _wait(self) -> bool:
        session = self.spec.host.session
        if session is not None and session.off:
            return False
        try:
            return wait_for_devices()
        except Exception as error:  # noqa: BLE001 - a kernel of the user's failed; the framework says so at its next call
            if session is not None:
                session.complain("sync", f"sync=True: waiting for the device failed ({error!r})")
            return False


class SyncedSpan(Synced, SpanRegion):
    """The same with a span."""

    __slots__ = ()
