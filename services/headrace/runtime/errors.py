"""Every error that Headrace raises on purpose.

::

    HeadraceError
    ├── InvalidRequestError      the caller's fault; lists every faulty field
    ├── NotFoundError            the caller named something that is not there
    ├── AlreadyExistsError       the caller would overwrite something different
    ├── FailedPreconditionError  not in this state; may say when to try again
    │   └── TrimmedError         the log has forgotten what the reader needs next
    ├── UnauthenticatedError     the caller does not say who it is, or cannot show it
    ├── PermissionDeniedError    it is known who the caller is, and it may not do this
    ├── OverloadedError          try again after `retry_after_s`
    ├── UnavailableError         a part that is needed is not there; try again
    ├── DeadlineError            there was no time left
    └── CorruptDataError         stored bytes are not what was written

`rpc_status` has the one table that maps them to gRPC statuses. A SettingsError stands beside them: it is told
to whoever starts a process, never to a caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class HeadraceError(Exception):
    """Something went wrong that Headrace knows by name."""

    retry_after_s: float | None = None


class SettingsError(Exception):
    """The environment does not fit; the message names every variable that is wrong."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One faulty field of a request: its path, and what was wrong with what was given."""

    field: str
    description: str


class InvalidRequestError(HeadraceError):
    """The request breaks rules; `faults` lists all of them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{fault.field}: {fault.description}" for fault in self.faults))

    @classmethod
    def of(cls, field: str, description: str) -> InvalidRequestError:
        """An error with a single fault."""
        return cls([Fault(field, description)])


class NotFoundError(HeadraceError):
    """What was asked for does not exist."""


class AlreadyExistsError(HeadraceError):
    """What was to be made exists, and is different."""


class FailedPreconditionError(HeadraceError):
    """The call is right, but not in the state that the service is in."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TrimmedError(FailedPreconditionError):
    """The event log has forgotten records that a reader has not read yet; `oldest_offset` is the first that is left."""

    def __init__(self, after_offset: int, oldest_offset: int) -> None:
        super().__init__(
            f"the event log has forgotten the records {after_offset + 1} to {oldest_offset - 1}, which a reader that"
            f" stands at {after_offset} needs: its state must be restored from a newer copy or begun anew"
        )
        self.oldest_offset = oldest_offset


class UnauthenticatedError(HeadraceError):
    """Who calls is not known: no credentials, or none that hold."""


class PermissionDeniedError(HeadraceError):
    """Who calls is known, and may not do this."""


class OverloadedError(HeadraceError):
    """There is more work than can be taken; come back after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(HeadraceError):
    """A part that the answer needs cannot be reached or is not ready."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(HeadraceError):
    """The caller's deadline came first."""


class CorruptDataError(HeadraceError):
    """Stored bytes do not match their checksum or form."""


class Faults:
    """Collects the faults of one request, so that all are reported together.

    >>> faults = Faults()
    >>> faults.add("page_size", "must be at least 1, got 0")
    >>> bool(faults)
    True
    """

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, field: str, description: str) -> None:
        self._faults.append(Fault(field, description))

    def check(self, holds: bool, field: str, description: str) -> bool:
        """Notes the fault unless `holds`; answers `holds`."""
        if not holds:
            self.add(field, description)
        return holds

    def __bool__(self) -> bool:
        return bool(self._faults)

    def all(self) -> tuple[Fault, ...]:
        return tuple(self._faults)

    def raise_if_any(self) -> None:
        """Raises InvalidRequestError with everything collected."""
        if self._faults:
            raise InvalidRequestError(self._faults)
