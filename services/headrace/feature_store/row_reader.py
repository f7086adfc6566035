"""Hands out training rows by the offsets at which their groups were closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from headrace.feature_store.progress import Progress
from headrace.feature_store.row_columns import RowColumns
from headrace.feature_store.row_store import Reading, RowStore
from headrace.feature_store.state_owner import StateOwner
from headrace.runtime.errors import FailedPreconditionError, InvalidRequestError

_RETRY_AFTER_S = 0.2
_PART_BYTES = 2 << 20


class RowReader:
    """Reads of one store of rows."""

    def __init__(self, rows: RowStore, owner: StateOwner, progress: Progress) -> None:
        self._rows = rows
        self._owner = owner
        self._progress = progress

    async def rows(self, after: int, until: int, up_to_folded: bool) -> AsyncIterator[tuple[RowColumns, int]]:
        """Groups closed at after < offset ≤ until, in parts; the last part says up to where they are complete.

        FailedPreconditionError when the fold is not there yet, unless `up_to_folded`.
        """
        _check_range(after, until)
        folded = self._progress.offset
        if until > folded and not up_to_folded:
            raise FailedPreconditionError(f"folded up to {folded}, {until} was asked for", _RETRY_AFTER_S)
        complete = min(until, folded)
        reading = await self._owner.run(lambda: self._rows.between(after, complete))
        async with aclosing(_parts(reading)) as parts:
            async for part in parts:
                yield part, after
        yield RowColumns.of([]), max(complete, after)


def _check_range(after: int, until: int) -> None:
    if after < 0:
        raise InvalidRequestError.of("after_offset", f"must be at least 0, got {after}")
    if until <= after:
        raise InvalidRequestError.of("until_offset", f"must be above after_offset {after}, got {until}")


async def _parts(reading: Reading) -> AsyncGenerator[RowColumns, None]:
    columns = reading.read()
    while (whole := await asyncio.to_thread(next, columns, None)) is not None:
        for part in whole.parts(_PART_BYTES):
            yield part
