"""All spaces, durable: checked against their sequence, logged, applied, and only then acknowledged."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from headrace.index.batch import Batch
from headrace.index.log_record import Activate, Adopt, Create, Drop, Entry, decoded, encoded
from headrace.index.rolling_hash import RollingHash
from headrace.index.rows import NO_ORDINALS, U32
from headrace.index.segment import Segment, SegmentView
from headrace.index.shard_file import check_shard
from headrace.index.snapshot import Manifest, Snapshots, Snapshotted, SpaceBase, read_rows, skipped
from headrace.index.space import Space
from headrace.index.write_ahead_log import WriteAheadLog
from headrace.runtime.atomic import make_directory
from headrace.runtime.errors import (
    AlreadyExistsError,
    CorruptDataError,
    FailedPreconditionError,
    HeadraceError,
    NotFoundError,
    UnavailableError,
)
from headrace.runtime.shards import WHOLE, Shard

log = logging.getLogger(__name__)

# one commit takes at most this much, so that the first of many waiting batches is soon answered
_COMMIT_BYTES = 8 << 20


@dataclass(frozen=True)
class Applied:
    """How far a space has come; `gap` when the batch did not follow on and changed nothing."""

    sequence: int
    log_offset: int
    gap: bool


@dataclass(frozen=True)
class Unsnapshotted:
    """What a restart would have to replay: bytes of log, and for how long the oldest has waited."""

    size_bytes: int
    age_s: float


@dataclass(frozen=True)
class _Waiting:
    entry: Entry
    done: asyncio.Future[Applied]


@dataclass(frozen=True)
class _Planned:
    """What becomes of a batch: the rows to log and apply, or an answer without any, or an error."""

    rows: Batch | None = None
    gap: bool = False
    error: HeadraceError | None = None


@dataclass(frozen=True)
class _Begun:
    """What a snapshot is made of, and the bytes of log that it makes needless."""

    last: int
    active: str
    spaces: list[Snapshotted]
    logged_bytes: int


class Store:
    """The spaces of one index, kept in a directory that no other process may use meanwhile.

    Opening it restores the newest snapshot that is whole and the log after it. Of every batch it keeps the rows
    of its shard; FailedPreconditionError: the directory holds another one.
    """

    def __init__(
        self,
        directory: Path,
        make_segment: Callable[[int], Segment],
        wal_file_bytes: int = 64 << 20,
        shard: Shard = WHOLE,
    ) -> None:
        make_directory(directory)
        self._lock = _locked(directory)
        check_shard(directory, shard)
        self.shard = shard
        self.make_segment = make_segment
        self._snapshots = Snapshots(directory / "snapshots")
        self._log = WriteAheadLog(directory / "wal", wal_file_bytes)
        self._spaces: dict[str, Space] = {}
        self._active = ""
        self._dropped: list[Space] = []
        self._waiting: list[_Waiting] = []
        self._committer: asyncio.Task[None] | None = None
        # one thread changes log and segments; snapshots are written on another
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="index-writer")
        self._snapshot_writer = ThreadPoolExecutor(1, thread_name_prefix="index-snapshot")
        self._snapshotting = asyncio.Lock()
        self._snapshot: asyncio.Task[None] | None = None
        self._logged_bytes = 0
        self._logged_since: float | None = None
        self._recover()

    @property
    def active(self) -> str:
        """The name of the active space; empty when there is none."""
        return self._active

    @property
    def spaces(self) -> list[Space]:
        """All spaces, by name."""
        return [space for _, space in sorted(self._spaces.items())]

    @property
    def unsnapshotted(self) -> Unsnapshotted:
        age_s = 0.0 if self._logged_since is None else time.monotonic() - self._logged_since
        return Unsnapshotted(self._logged_bytes, age_s)

    def space(self, name: str) -> Space:
        """The space of that name, or the active one for an empty name. NotFoundError."""
        wanted = name or self._active
        if not wanted:
            raise NotFoundError("no space was named and none is active")
        if wanted not in self._spaces:
            raise NotFoundError(f"no space {wanted!r}; there are: {', '.join(sorted(self._spaces)) or 'none'}")
        return self._spaces[wanted]

    def apply(self, batch: Batch) -> asyncio.Future[Applied]:
        """Takes a batch in the order of calling; done when it is durable and visible, or refused."""
        return self._submit(batch.owned_by(self.shard))

    async def create(self, name: str, dimension: int) -> None:
        """Makes an empty space. AlreadyExistsError when there is one of another dimension."""
        await self._submit(Create(name, dimension))

    async def activate(self, name: str) -> str:
        """Makes a space the active one; the name of the one before. NotFoundError."""
        previous = self._active
        await self._submit(Activate(name))
        return previous

    async def drop(self, name: str) -> None:
        """Frees a space. FailedPreconditionError: it is active. A repeat is fine."""
        await self._submit(Drop(name))

    async def snapshot(self) -> None:
        """Writes all spaces as they are now, so that the log before can go. UnavailableError: the disk refused."""
        # goes on when the caller is cancelled, as its thread would
        self._snapshot = asyncio.create_task(self._take_snapshot(), name="index-snapshot")
        await asyncio.shield(self._snapshot)

    async def _take_snapshot(self) -> None:
        async with self._snapshotting:
            covered = await self._write_snapshot()
            await self._delete_old()
            log.info("snapshot_written", extra={"record": covered.last, "spaces": len(covered.spaces)})

    async def _delete_old(self) -> None:
        loop = asyncio.get_running_loop()
        kept = await loop.run_in_executor(self._snapshot_writer, self._snapshots.delete_old)
        await loop.run_in_executor(self._writer, self._log.delete_through, kept)

    async def _write_snapshot(self) -> Manifest:
        loop = asyncio.get_running_loop()
        begun = await loop.run_in_executor(self._writer, self._begin_snapshot, self.spaces)
        return await loop.run_in_executor(self._snapshot_writer, self._written, begun)

    def _written(self, begun: _Begun) -> Manifest:
        """Writes a snapshot. UnavailableError: the disk refused."""
        try:
            return self._snapshots.write(begun.last, begun.active, begun.spaces)
        except OSError as error:
            self._note_logged(begun.logged_bytes)
            raise UnavailableError(f"snapshot not written: {error}") from error

    async def pinned(self, space: Space, pins: ExitStack) -> tuple[SegmentView, RollingHash]:
        """The rows of a space and their hash as of one moment, until `pins` closes."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._writer, lambda: (pins.enter_context(space.segment.view()), space.rolling_hash)
        )

    async def adopt(self, space: Space) -> bool:
        """Puts what a replica holds in the place of what is here, durably; whether it was further than this.

        A crash leaves the old rows or the new ones. FailedPreconditionError: the space here has another dimension.
        """
        loop = asyncio.get_running_loop()
        at = (space.applied_sequence, space.log_offset)
        async with self._snapshotting:
            is_new, changed = await loop.run_in_executor(self._writer, self._adopt, space)
            if is_new:
                self._spaces[space.name].announce(changed, at)
                await self._delete_old()
        return is_new

    def _adopt(self, adopted: Space) -> tuple[bool, U32]:
        """Runs on the writer's thread, so between two commits; whatever is committed next follows on the new rows."""
        old = self._spaces.get(adopted.name)
        if old is not None and old.dimension != adopted.dimension:
            raise FailedPreconditionError(
                f"space {old.name!r} has dimension {old.dimension}, the replica's has {adopted.dimension}"
            )
        if old is not None and old.applied_sequence >= adopted.applied_sequence:
            return False, NO_ORDINALS
        # a number of its own, so that no older snapshot is written over
        self._append([Adopt(adopted.name)])
        spaces = {**self._spaces, adopted.name: adopted}
        self._written(self._begin_snapshot([space for _, space in sorted(spaces.items())]))
        if old is not None:
            return True, old.become(adopted)
        self._spaces = spaces
        return True, NO_ORDINALS

    async def close(self) -> None:
        """Finishes what waits, writes a snapshot when there is anything new, and frees the directory."""
        if self._committer is not None:
            await self._committer
        if self._snapshot is not None:
            await asyncio.wait([self._snapshot])
        if self._logged_bytes:
            await self.snapshot()
        self._writer.shutdown()
        self._snapshot_writer.shutdown()
        self._log.close()
        self._lock.close()

    def _submit(self, entry: Entry) -> asyncio.Future[Applied]:
        done: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(entry, done))
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_all(), name="index-commit")
        return done

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group = self._take_group()
            entries = [waiting.entry for waiting in group]
            answers: Sequence[Applied | HeadraceError]
            try:
                answers = await loop.run_in_executor(self._writer, self._commit, entries)
            except UnavailableError as error:
                answers = [error] * len(group)
            except Exception as error:
                # the loop must survive; a sender that comes again finds a state that its sequence fits
                log.exception("commit_failed")
                answers = [UnavailableError(f"commit failed: {type(error).__name__}", retry_after_s=1.0)] * len(group)
            self._announce(entries)
            for waiting, answer in zip(group, answers, strict=True):
                _settle(waiting.done, answer)

    def _take_group(self) -> list[_Waiting]:
        # changes of the spaces themselves are committed alone: a batch is planned against what is there
        group = [self._waiting.pop(0)]
        size = _size(group[0].entry)
        while self._waiting and isinstance(group[-1].entry, Batch) and isinstance(self._waiting[0].entry, Batch):
            size += _size(self._waiting[0].entry)
            if size > _COMMIT_BYTES:
                break
            group.append(self._waiting.pop(0))
        return group

    def _announce(self, entries: Sequence[Entry]) -> None:
        while self._dropped:
            self._dropped.pop().end()
        for entry in entries:
            if isinstance(entry, Batch) and entry.space in self._spaces:
                self._spaces[entry.space].announce(entry.ordinals)

    def _commit(self, entries: Sequence[Entry]) -> Sequence[Applied | HeadraceError]:
        """Runs on the writer's thread."""
        first = entries[0]
        if not isinstance(first, Batch):
            return [self._commit_control(first)]
        planned = self._plan([entry for entry in entries if isinstance(entry, Batch)])
        self._append([batch.rows for batch in planned if batch.rows is not None])
        for batch in planned:
            if batch.rows is not None:
                self._apply(batch.rows)
        return [batch.error or self._applied(entry, batch.gap) for entry, batch in zip(entries, planned, strict=True)]

    def _plan(self, batches: Sequence[Batch]) -> list[_Planned]:
        reached: dict[str, int] = {}
        planned = []
        for batch in batches:
            space = self._spaces.get(batch.space)
            # looked at again: the space may have been dropped, or made anew, since the batch was checked
            if space is None or space.dimension != batch.vectors_ND.shape[1]:
                missing = f"no space {batch.space!r} of dimension {batch.vectors_ND.shape[1]}"
                planned.append(_Planned(error=NotFoundError(missing)))
                continue
            planned.append(_follow(batch, reached.get(batch.space, space.applied_sequence)))
            if (rows := planned[-1].rows) is not None:
                reached[batch.space] = rows.last_sequence
        return planned

    def _applied(self, entry: Entry, gap: bool) -> Applied:
        space = self._spaces[entry.space]
        return Applied(space.applied_sequence, space.log_offset, gap)

    def _commit_control(self, entry: Create | Activate | Drop) -> Applied | HeadraceError:
        try:
            if self._changes(entry):
                self._append([entry])
                self._apply(entry)
        except HeadraceError as error:
            return error
        return Applied(0, 0, gap=False)

    def _changes(self, entry: Create | Activate | Drop) -> bool:
        """Whether an entry changes anything; raises when it must not."""
        space = self._spaces.get(entry.space)
        if isinstance(entry, Drop):
            if entry.space == self._active:
                raise FailedPreconditionError(f"space {entry.space!r} is active: activate another one first")
            return space is not None
        if isinstance(entry, Activate):
            if space is None:
                raise NotFoundError(f"no space {entry.space!r} to activate")
            return entry.space != self._active
        if space is not None and space.dimension != entry.dimension:
            raise AlreadyExistsError(f"space {entry.space!r} has dimension {space.dimension}, not {entry.dimension}")
        return space is None

    def _append(self, entries: Sequence[Entry | Adopt]) -> None:
        payloads = [encoded(entry) for entry in entries]
        if not payloads:
            return
        self._log.append(payloads)
        self._note_logged(sum(len(payload) for payload in payloads))

    def _note_logged(self, size_bytes: int) -> None:
        self._logged_bytes += size_bytes
        if self._logged_since is None:
            self._logged_since = time.monotonic()

    def _apply(self, entry: Entry) -> None:
        if isinstance(entry, Batch):
            self._spaces[entry.space].take(entry)
        elif isinstance(entry, Create):
            space = Space(entry.space, entry.dimension, self.make_segment(entry.dimension))
            # replaced, not changed: the event loop reads it at the same time
            self._spaces = {**self._spaces, entry.space: space}
        elif isinstance(entry, Activate):
            self._active = entry.space
        else:
            self._dropped.append(self._spaces[entry.space])
            self._spaces = {name: space for name, space in self._spaces.items() if name != entry.space}

    def _begin_snapshot(self, spaces: Sequence[Space]) -> _Begun:
        """What a snapshot is to hold, as of now. Runs on the writer's thread, so between two commits."""
        held = [
            Snapshotted(
                space.name,
                space.segment,
                space.ordinals(),
                space.applied_sequence,
                space.log_offset,
                space.rolling_hash,
            )
            for space in spaces
        ]
        self._log.rotate()
        logged_bytes, self._logged_bytes, self._logged_since = self._logged_bytes, 0, None
        return _Begun(self._log.last, self._active, held, logged_bytes)

    def _recover(self) -> None:
        begun = time.perf_counter()
        base = self._restore_newest()
        replayed = 0
        for number, payload in self._log.recover(after=base):
            self._note_logged(len(payload))
            replayed += self._replay(number, payload)
        seconds = round(time.perf_counter() - begun, 3)
        log.info(
            "recovered",
            extra={"snapshot": base, "replayed_records": replayed, "spaces": len(self._spaces), "seconds": seconds},
        )

    def _restore_newest(self) -> int:
        for manifest, folder in self._snapshots.newest():
            try:
                spaces = {base.name: self._restored(folder, base) for base in manifest.spaces}
            except (OSError, CorruptDataError) as error:
                skipped(folder, error)
                continue
            self._spaces, self._active = spaces, manifest.active
            return manifest.last
        return 0

    def _restored(self, folder: Path, base: SpaceBase) -> Space:
        segment = self.make_segment(base.dimension)
        segment.fill(read_rows(folder, base), base.sequence, base.log_offset)
        return Space(base.name, base.dimension, segment, base.rolling_hash)

    def _replay(self, number: int, payload: bytes) -> bool:
        """Whether a record changed anything. What does not fit is skipped, and said."""
        try:
            entry = decoded(payload)
        except CorruptDataError as error:
            log.error("log_record_skipped", extra={"record": number, "reason": str(error)})
            return False
        if isinstance(entry, Adopt):
            log.warning("adoption_not_finished", extra={"record": number, "space": entry.space})
            return False
        if isinstance(entry, Batch):
            [planned] = self._plan([entry])
            if planned.rows is None:
                reason = "a gap" if planned.gap else str(planned.error or "a repeat")
                log.warning("log_record_skipped", extra={"record": number, "space": entry.space, "reason": reason})
                return False
            self._apply(planned.rows)
            return True
        return self._replay_control(number, entry)

    def _replay_control(self, number: int, entry: Create | Activate | Drop) -> bool:
        try:
            changes = self._changes(entry)
        except HeadraceError as error:
            log.warning("log_record_skipped", extra={"record": number, "space": entry.space, "reason": str(error)})
            return False
        if changes:
            self._apply(entry)
        return changes


def _follow(batch: Batch, sequence: int) -> _Planned:
    """What of a batch is to be applied to a space that has reached `sequence`."""
    if batch.first_sequence > sequence + 1:
        return _Planned(gap=True)
    if batch.first_sequence <= sequence >= batch.last_sequence:
        return _Planned()
    return _Planned(rows=batch.after(sequence))


def _size(entry: Entry) -> int:
    return entry.vectors_ND.nbytes if isinstance(entry, Batch) else 0


def _settle(done: asyncio.Future[Applied], answer: Applied | HeadraceError) -> None:
    if done.done():
        return
    if isinstance(answer, HeadraceError):
        done.set_exception(answer)
    else:
        done.set_result(answer)


def _locked(directory: Path) -> BinaryIO:
    file = (directory / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise FailedPreconditionError(f"{directory} is in use by another index process") from error
    return file
