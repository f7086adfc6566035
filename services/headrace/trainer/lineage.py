"""One line of weights: what is learned, journalled and checkpointed together, and found again after a crash.

Every act of learning is one transaction of the delta log: its deltas and its journal entry. A checkpoint
holds the state after some entry. After a crash the entries behind the newest checkpoint are learned once
more over the same records; the digest of their deltas says whether the same state was reached.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.runtime.errors import FailedPreconditionError
from headrace.trainer.arrays import Kept, gathered, scatter
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.delta_log import DeltaLog, Entry
from headrace.trainer.deltas import Deltas, vectors_digest
from headrace.trainer.impressions import ImpressionJoin
from headrace.trainer.learner import Learner
from headrace.trainer.prequential import Quality
from headrace.trainer.ranker_learner import Groups, RankerLearner
from headrace.trainer.records import Product, Slice
from headrace.trainer.settings import TrainerSettings

log = logging.getLogger(__name__)

PRODUCTS, EVENTS, DRIFT, RECONCILE = "products", "events", "drift", "reconcile"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where learning stands."""

    entry: int = 0
    # every record up to here is learned; products may be further
    offset: int = 0
    products_offset: int = 0
    slices: int = 0
    examples: int = 0
    train_seconds: float = 0.0
    loss: float = 0.0
    # training rows are learned up to here
    rows_offset: int = 0
    rows: int = 0
    ranker_loss: float = 0.0
    last_sequence: int = 0
    checkpoint_entry: int = 0
    checkpoint_offset: int = 0
    quality: tuple[Quality, ...] = ()
    overall: Quality | None = None


class Lineage:
    """The learners with their delta log and checkpoints. One thread at a time may act on it.

    `standing` and `digest` may be read from any thread.
    """

    def __init__(self, settings: TrainerSettings, delta_log: DeltaLog, checkpoints: Checkpoints) -> None:
        self.learner = Learner(settings)
        self.ranker = RankerLearner(settings)
        self._settings = settings
        self._impressions = ImpressionJoin(settings.impression_window_s, settings.pending_impressions)
        self._delta_log = delta_log
        self._checkpoints = checkpoints
        self._parts: dict[str, Kept] = {
            "learner": self.learner,
            "ranker": self.ranker,
            "impressions": self._impressions,
        }
        self.standing = Standing()

    def load(self) -> list[Entry]:
        """Brings back the newest checkpoint; the journal entries that must be learned again, in order."""
        checkpoint = self._checkpoints.newest()
        if checkpoint is not None:
            self._check_form(checkpoint.facts["form"])
            scatter(self._parts, checkpoint.arrays)
            self.standing = Standing(
                **checkpoint.facts["standing"],
                checkpoint_entry=checkpoint.entry,
                checkpoint_offset=checkpoint.facts["standing"]["offset"],
            )
        return self._delta_log.journal(self.standing.entry)

    def _check_form(self, form: dict[str, int]) -> None:
        if form != self._form():
            raise FailedPreconditionError(f"the checkpoint has sizes {form}, the settings say {self._form()}")

    def _form(self) -> dict[str, int]:
        names = ("dimension", "blocks", "heads", "max_length", "text_width")
        return {name: getattr(self._settings, name) for name in names}

    def relearn(self, entry: Entry, records: Slice) -> bool:
        """Learns a journalled slice once more; whether it came out as it did then."""
        deltas = self._act(entry.kind, records)
        self.standing = replace(self.standing, entry=entry.number)
        return deltas.digest() == entry.digest or entry.kind == RECONCILE

    def settle(self) -> int:
        """After relearning: appends whatever in the delta log is not as it is here; how many rows."""
        difference = self.learner.sent.difference(self._delta_log.live())
        if len(difference):
            log.warning("relearned_differently", extra={"rows": len(difference)})
            self._commit(RECONCILE, difference, self.standing.offset, self.standing.offset)
            self.checkpoint()
        self._look()
        return len(difference)

    def learn_products(self, records: Slice, traceparent: str = "") -> int:
        """Learns the product changes of a slice that are new; how many there were."""
        if not self._new_products(records):
            return 0
        count = len(self._new_products(records))
        deltas = self._act(PRODUCTS, records)
        # behaviour of these records is not in the vectors yet
        self._commit(PRODUCTS, deltas, records.after, records.until, traceparent, records.append_times_us)
        return count

    def learn(self, records: Slice, traceparent: str = "") -> None:
        """Learns the next slice: its product changes first, then what people did."""
        self.learn_products(records, traceparent)
        begun = time.perf_counter()
        deltas = self._act(EVENTS, records)
        self._commit(EVENTS, deltas, records.after, records.until, traceparent, records.append_times_us)
        seconds = time.perf_counter() - begun
        self.standing = replace(self.standing, train_seconds=self.standing.train_seconds + seconds)

    def send_drifted(self) -> int:
        """Sends every vector that moved since it was sent, whatever moved it; how many."""
        offset = self.standing.offset
        deltas = self._act(DRIFT, Slice.empty(offset, offset))
        self._commit(DRIFT, deltas, offset, offset)
        return len(deltas)

    def learn_rows(self, groups: Groups, complete_offset: int) -> None:
        """Learns training rows of the ranker network, all there are up to an offset."""
        self.ranker.learn(groups)
        self.standing = replace(self.standing, rows_offset=max(self.standing.rows_offset, complete_offset))
        self._look()

    def checkpoint(self) -> None:
        """Keeps the state; journal entries that no kept checkpoint needs are dropped."""
        standing = self.standing
        facts = {name: getattr(standing, name) for name in _KEPT_FACTS}
        self._checkpoints.save(standing.entry, {"form": self._form(), "standing": facts}, gathered(self._parts))
        self._delta_log.forget_journal(self._checkpoints.oldest_entry())
        self.standing = replace(standing, checkpoint_entry=standing.entry, checkpoint_offset=standing.offset)

    def digest(self) -> tuple[str, int]:
        """SHA-256 of the vectors as last sent, and how many there are."""
        live = self.learner.sent.all()
        return vectors_digest(live), len(live)

    def _new_products(self, records: Slice) -> Sequence[Product]:
        return [product for product in records.products if product.offset > self.standing.products_offset]

    def _act(self, kind: str, records: Slice) -> Deltas:
        standing = self.standing
        if kind == PRODUCTS:
            deltas = self.learner.learn_products(self._new_products(records))
            self.standing = replace(standing, products_offset=records.until)
        elif kind == EVENTS:
            learned = self.learner.learn(records, standing.slices + 1)
            deltas = learned.deltas
            self.ranker.learn(self._impressions.fold(records.impressions, records.events))
            self.standing = replace(
                standing,
                offset=records.until,
                products_offset=max(records.until, standing.products_offset),
                slices=standing.slices + 1,
                examples=standing.examples + learned.examples,
                loss=learned.loss or standing.loss,
            )
            if learned.skipped_steps:
                log.error("steps_skipped", extra={"steps": learned.skipped_steps, "until": records.until})
        else:
            deltas = self.learner.drifted() if kind == DRIFT else Deltas.empty(self._settings.dimension)
        return deltas

    def _commit(
        self,
        kind: str,
        deltas: Deltas,
        after: int,
        until: int,
        traceparent: str = "",
        append_times_us: Sequence[int] = (),
    ) -> None:
        entry = Entry(self.standing.entry + 1, kind, after, until, deltas.digest())
        self._delta_log.commit(
            entry,
            deltas,
            log_offset=until if kind == EVENTS else self.standing.offset,
            traceparent=traceparent,
            append_time_us=min(append_times_us, default=0),
        )
        self.standing = replace(self.standing, entry=entry.number)
        self._look()

    def _look(self) -> None:
        self.standing = replace(
            self.standing,
            rows=self.ranker.rows,
            ranker_loss=self.ranker.loss,
            last_sequence=self._delta_log.last_sequence,
            quality=tuple(self.learner.prequential.by_week()),
            overall=self.learner.prequential.overall(),
        )


_KEPT_FACTS = (
    "entry",
    "offset",
    "products_offset",
    "slices",
    "examples",
    "train_seconds",
    "loss",
    "rows_offset",
    "rows",
    "ranker_loss",
    "last_sequence",
)
