"""Which purchase a cancellation takes back.

It is the newest purchase of the same person that still holds every cancelled product in sufficient
quantity (and has the same transaction, when one is named). A cancellation that finds none is kept and
marked: `cancel-exceeds` where there are purchases but none holds as many units, else `cancel-unmatched`.
The memory is a fold of the newest `window` log records, so a restarted process, or another replica,
finds the same.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from sys import intern

from headrace.ingest.rules import CANCEL_EXCEEDS, CANCEL_UNMATCHED
from headrace.ingest.validation import CANCEL, PURCHASE
from headrace.runtime.errors import CorruptDataError, TrimmedError
from headrace.runtime.eventlog import EventLog, LoggedRecord
from headrace.runtime.eventlog.payloads import pass_over, payload_of
from headrace.v1.common_pb2 import UserEvent
from headrace.v1.log_pb2 import LoggedUserEvent

_READ_LIMIT = 2_000

# whose, and which product
_Key = tuple[str, str]


@dataclass(slots=True, eq=False)
class _Line:
    """One product of one purchase, and how many units are not taken back yet."""

    key: _Key
    purchase_id: str
    transaction_id: str
    offset: int
    left: int


@dataclass
class _Memory:
    """Lines by person and product, oldest first, and what was decided for each cancellation."""

    lines: dict[_Key, list[_Line]] = field(default_factory=dict)
    by_age: deque[_Line] = field(default_factory=deque)
    decided: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, user_key: str, purchase_id: str, event: UserEvent, offset: int) -> None:
        # people, products and orders come again and again: one string each saves a third of the memory
        person, transaction_id = intern(user_key), intern(event.transaction_id)
        for product_id, units in _units(event).items():
            line = _Line((person, intern(product_id)), purchase_id, transaction_id, offset, units)
            self.lines.setdefault(line.key, []).append(line)
            self.by_age.append(line)

    def take(self, user_key: str, purchase_id: str, event: UserEvent) -> None:
        for product_id, units in _units(event).items():
            line = self.line((user_key, product_id), purchase_id)
            if line is not None:
                line.left -= units

    def line(self, key: _Key, purchase_id: str) -> _Line | None:
        return next((line for line in self.newest(key) if line.purchase_id == purchase_id), None)

    def newest(self, key: _Key) -> Iterator[_Line]:
        return reversed(self.lines.get(key, []))

    def forget(self, until_offset: int) -> None:
        while self.by_age and self.by_age[0].offset <= until_offset:
            self._forget_line(self.by_age.popleft())
        while self.decided and self.decided[first := next(iter(self.decided))][0] <= until_offset:
            del self.decided[first]

    def drop(self, is_gone: Callable[[str], bool]) -> None:
        gone = {person for person in {person for person, _ in self.lines} if is_gone(person)}
        if gone:
            self.lines = {key: lines for key, lines in self.lines.items() if key[0] not in gone}
            self.by_age = deque(line for line in self.by_age if line.key[0] not in gone)

    def _forget_line(self, line: _Line) -> None:
        lines = self.lines[line.key]
        # both are in the order of the log
        lines.pop(0)
        if not lines:
            del self.lines[line.key]


class Purchases:
    """The purchases that may still be cancelled, folded from the log up to `offset`."""

    def __init__(self, log: EventLog, *, window: int) -> None:
        self._log = log
        self._window = window
        self._memory = _Memory()
        self.offset = 0

    async def catch_up(self) -> None:
        """Folds what was appended since the last time, by whatever process."""
        end = (await self._log.end())[0]
        self.offset = max(self.offset, end - self._window)
        while self.offset < end:
            records = await self._read()
            self._fold(records)
            newest = records[-1].offset if records else end
            self.offset = newest if len(records) == _READ_LIMIT else max(newest, end)
        self._memory.forget(self.offset - self._window)

    async def _read(self) -> list[LoggedRecord]:
        try:
            return await self._log.read(self.offset, limit=_READ_LIMIT, kinds=("user-event",))
        except TrimmedError as error:
            # no purchase can be cancelled that the log has forgotten
            self.offset = error.oldest_offset - 1
            return await self._log.read(self.offset, limit=_READ_LIMIT, kinds=("user-event",))

    def drop(self, is_gone: Callable[[str], bool]) -> None:
        """Forgets the purchases of people."""
        self._memory.drop(is_gone)

    def draft(self) -> Draft:
        """A view to decide on events that are not in the log yet; it changes nothing."""
        return Draft(self._memory)

    def _fold(self, records: Sequence[LoggedRecord]) -> None:
        for record in records:
            # nine events in ten are no purchase: looking for the type's bytes costs a tenth of parsing
            if b"purchase-c" in record.payload:
                try:
                    self._fold_event(record.offset, payload_of(LoggedUserEvent, record))
                except CorruptDataError as error:
                    pass_over(record, error)

    def _fold_event(self, offset: int, logged: LoggedUserEvent) -> None:
        event = logged.event
        if event.event_type == PURCHASE:
            self._memory.add(logged.user_key, event.event_id, event, offset)
        elif event.event_type == CANCEL:
            self._memory.take(logged.user_key, logged.cancelled_event_id, event)
            self._memory.decided[event.event_id] = (offset, logged.cancelled_event_id)


class Draft:
    """Matches the cancellations of one batch against the log and the batch itself."""

    def __init__(self, memory: _Memory) -> None:
        self._memory = memory
        self._batch = _Memory()
        self._taken: Counter[tuple[_Key, str]] = Counter()
        # the rule that marks each cancellation for which no purchase was found, by event id
        self.marks: dict[str, str] = {}

    def decide(self, user_key: str, event_id: str, event: UserEvent) -> str:
        """The id of the purchase that an event cancels; empty for other events, and when there is none.

        Events must come in their order. One that was decided before keeps its answer.
        """
        if event.event_type == PURCHASE:
            self._note(user_key, event_id, event)
        if event.event_type != CANCEL:
            return ""
        known = self._memory.decided.get(event_id) or self._batch.decided.get(event_id)
        if known is None:
            known = self._batch.decided[event_id] = (0, self._match(user_key, event_id, event))
        return known[1]

    def _note(self, user_key: str, event_id: str, event: UserEvent) -> None:
        key = (user_key, event.product_details[0].product_id)
        if self._memory.line(key, event_id) is None and self._batch.line(key, event_id) is None:
            self._batch.add(user_key, event_id, event, offset=0)

    def _match(self, user_key: str, event_id: str, event: UserEvent) -> str:
        wanted = {(user_key, product_id): units for product_id, units in _units(event).items()}
        self.marks[event_id] = CANCEL_UNMATCHED
        for line in self._newest(next(iter(wanted))):
            fits = not event.transaction_id or line.transaction_id == event.transaction_id
            if fits and all(self._left(key, line.purchase_id) >= units for key, units in wanted.items()):
                self._taken.update({(key, line.purchase_id): units for key, units in wanted.items()})
                del self.marks[event_id]
                return line.purchase_id
            if fits:
                self.marks[event_id] = CANCEL_EXCEEDS
        return ""

    def _newest(self, key: _Key) -> Iterator[_Line]:
        yield from self._batch.newest(key)
        yield from self._memory.newest(key)

    def _left(self, key: _Key, purchase_id: str) -> int:
        line = self._batch.line(key, purchase_id) or self._memory.line(key, purchase_id)
        return line.left - self._taken[key, purchase_id] if line else 0


def _units(event: UserEvent) -> dict[str, int]:
    """Units by product; a quantity of 0 means 1."""
    units: dict[str, int] = {}
    for detail in event.product_details:
        units[detail.product_id] = units.get(detail.product_id, 0) + (detail.quantity or 1)
    return units
