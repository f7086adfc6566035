"""One line of weights: what is learned, journalled and checkpointed together, and found again after a crash.

Every act of learning is one transaction of the delta log: its deltas and its journal entry. A checkpoint
holds the state after some entry. After a crash the entries behind the newest checkpoint are learned once
more over the same records; the digest of their deltas says whether the same state was reached.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.model.attribution import Tokens
from headrace.model.candidates import FEATURE_SCHEMA
from headrace.model.text import ngrams
from headrace.model.text.encoder import EncoderName, TextEncoder
from headrace.runtime.errors import FailedPreconditionError
from headrace.runtime.privacy import UNKEYED, Privacy
from headrace.trainer.acts import (
    BEAT,
    DRIFT,
    ERASE,
    EVENTS,
    LOAD,
    NO_CHECKPOINT,
    PRODUCTS,
    RECONCILE,
    ROTATE,
    STOP,
    Act,
)
from headrace.trainer.arrays import Kept, gathered, scatter
from headrace.trainer.checkpoint import Checkpoint, Checkpoints
from headrace.trainer.delta_log import DeltaLog, Entry
from headrace.trainer.deltas import Deltas, vectors_digest
from headrace.trainer.forgotten import Forgotten
from headrace.trainer.gauge import Reading
from headrace.trainer.impressions import ImpressionJoin
from headrace.trainer.learner import Learner
from headrace.trainer.own_share import OwnShare
from headrace.trainer.peers import Alone, PeerError, Peers
from headrace.trainer.prequential import Quality
from headrace.trainer.ranker_learner import Groups, RankerLearner
from headrace.trainer.records import Product, Slice
from headrace.trainer.settings import TrainerSettings

log = logging.getLogger(__name__)


# what the arrays of a checkpoint are; 4: what is kept of people says whose it is
STATE_VERSION = 4


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
    # what the learning rates are multiplied by, and changes for the worse so far
    rate: float = 1.0
    drifts: int = 0
    wants_rotation: bool = False
    # as of the newest publish of this process
    gauge: Reading | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """The standing with the delta log and the vectors that belong to it."""

    standing: Standing
    space: str
    last_sequence: int
    # SHA-256 of the vectors as last sent, and how many there are
    digest: str
    vectors: int


class Lineage:
    """The learners with their delta log and checkpoints. One thread at a time may act on it.

    `own_releases` is asked for only where training is not mirrored.
    `standing` and `look` may be read from any thread.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        delta_log: DeltaLog,
        checkpoints: Checkpoints,
        encoder: TextEncoder | None = None,
        peers: Peers | None = None,
        privacy: Privacy = UNKEYED,
        own_releases: Container[str] = (),
    ) -> None:
        self._peers = peers or Alone()
        self._privacy = privacy
        self.learner = Learner(settings, encoder, self._peers, privacy)
        self.ranker = RankerLearner(settings)
        self._settings = settings
        self._share = OwnShare(Tokens(privacy.derived("attribution tokens")), own_releases)
        self._forgotten = Forgotten()
        self._impressions = ImpressionJoin(
            settings.impression_window_s, settings.pending_impressions, privacy, self._forgotten
        )
        self._delta_log = delta_log
        self._checkpoints = checkpoints
        self._parts: dict[str, Kept] = {
            "learner": self.learner,
            "ranker": self.ranker,
            "impressions": self._impressions,
            "forgotten": self._forgotten,
        }
        # by erasure, what was erased of it since this process began
        self.erased: dict[str, dict[str, int]] = {}
        self.standing = Standing()
        # held while what is durable, what is noted as sent and the standing change together
        self._changing = threading.Lock()
        # false from the beginning of an act to its end: a state that is half learned must not be kept
        self._is_whole = True

    def load(self) -> list[Entry]:
        """Brings back the newest checkpoint; the journal entries that must be learned again, in order."""
        checkpoint = self._checkpoints.newest()
        self._restore(checkpoint)
        entry = NO_CHECKPOINT if checkpoint is None else checkpoint.entry
        self._peers.tell(Act(LOAD, entry=entry))
        self._peers.agree(lambda: f"loaded {entry}")
        return self._delta_log.journal(self.standing.entry)

    def follow(self, act: Act, records: Slice) -> None:
        """Does to this state what rank 0 does to its own; nothing becomes durable here.

        PeerError: it came out otherwise than there.
        """
        if act.kind == LOAD:
            self._restore(None if act.entry == NO_CHECKPOINT else self._checkpoints.at(act.entry))
            self._peers.agree(lambda: f"loaded {act.entry}")
        elif act.kind != BEAT:
            self.relearn(Entry(act.entry, act.kind, act.after, act.until, digest=""), records)

    def beat(self) -> None:
        """Lets other processes of the learner know that this one is there. PeerError: one of them is not."""
        self._peers.tell(Act(BEAT))

    def leave(self) -> None:
        """Lets the other processes of the learner stop; nothing is learned after it."""
        if not self._is_whole:  # some may wait in the midst of a step: they notice that this process ends
            return
        try:
            self._peers.tell(Act(STOP))
            self._peers.leave()
        except PeerError as error:
            log.warning("peers_lost", extra={"reason": str(error)})

    def _restore(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None:
            # before a pre-trained encoder could be chosen, it was always the fitted one
            self._check_encoder(EncoderName(**checkpoint.facts.get("text_encoder", {"kind": ngrams.KIND})))
            self._check_form(checkpoint.facts["form"])
            standing = Standing(**checkpoint.facts["standing"], checkpoint_entry=checkpoint.entry)
            parts = self._parts
            if checkpoint.facts["feature_schema"] != FEATURE_SCHEMA:
                # the ranker network reads other features now: it learns all rows anew
                log.warning("ranker_begins_anew", extra={"feature_schema": FEATURE_SCHEMA})
                parts = {"learner": self.learner, "forgotten": self._forgotten}
                standing = replace(standing, rows_offset=0, rows=0, ranker_loss=0.0)
            with self._changing:
                scatter(parts, checkpoint.arrays)
                self.standing = replace(standing, checkpoint_offset=standing.offset)

    def _check_encoder(self, kept: EncoderName) -> None:
        chosen = self.learner.catalogue.encoder.name
        if kept != chosen:
            raise FailedPreconditionError(
                f"the checkpoint was learned over the text encoder {kept}, the settings choose {chosen}"
            )

    def _check_form(self, form: dict[str, int]) -> None:
        if form != self._form():
            raise FailedPreconditionError(
                f"the checkpoint is of form {form}, this build and its settings of {self._form()}"
            )

    def _form(self) -> dict[str, int]:
        names = ("dimension", "blocks", "heads", "max_length", "text_width")
        return {"state": STATE_VERSION} | {name: getattr(self.learner.shape, name) for name in names}

    def relearn(self, entry: Entry, records: Slice) -> bool:
        """Learns a journalled slice once more; whether it came out as it did then."""
        deltas, standing = self._act(entry.kind, records)
        with self._changing:
            self._note(entry, deltas, standing)
        return deltas.digest() == entry.digest or entry.kind == RECONCILE

    def settle(self) -> int:
        """After relearning: appends whatever in the delta log is not as it is here; how many rows."""
        difference = self.learner.sent.difference(self._delta_log.live())
        if len(difference):
            log.warning("relearned_differently", extra={"rows": len(difference)})
            offset = self.standing.offset
            self._commit(RECONCILE, difference, self.standing, Slice.empty(offset, offset))
            self.checkpoint()
        self._count()
        return len(difference)

    def learn_products(self, records: Slice, traceparent: str = "") -> int:
        """Learns the product changes of a slice that are new; how many there were."""
        if not self._new_products(records):
            return 0
        count = len(self._new_products(records))
        self._learn(PRODUCTS, records, traceparent)
        return count

    def learn(self, records: Slice, traceparent: str = "") -> None:
        """Learns the next slice: its product changes first, then what people did."""
        self.learn_products(records, traceparent)
        begun = time.perf_counter()
        self._learn(EVENTS, records, traceparent)
        seconds = time.perf_counter() - begun
        self.standing = replace(self.standing, train_seconds=self.standing.train_seconds + seconds)

    def send_drifted(self) -> int:
        """Sends every vector that moved since it was sent, whatever moved it, and reads the gauge; how many.

        It goes before each publish. The gauge notes what is fresh, so reading it is part of the journalled act.
        """
        return self._learn(DRIFT, Slice.empty(self.standing.offset, self.standing.offset))

    def rotate(self, reason: str) -> str:
        """Begins a new space that holds every vector, with its journal entry; its name."""
        nothing, standing = self._act(ROTATE, Slice.empty(self.standing.offset, self.standing.offset))
        entry = Entry(standing.entry + 1, ROTATE, standing.offset, standing.offset, nothing.digest())
        with self._changing:
            space = self._delta_log.begin_space((), reason, entry)
            self._note(entry, nothing, standing)
        self._count()
        return space

    def erase(self, records: Slice) -> None:
        """Forgets people whom the slice, which is a tombstone alone, names. `forget_older` is to follow."""
        self._learn(ERASE, records)

    def forget_older(self) -> None:
        """Keeps the state as it is, and nothing of what it was before. FailedPreconditionError: an act broke off."""
        if not self._is_whole:
            raise FailedPreconditionError("an act of learning broke off: its state cannot be kept")
        self.checkpoint()
        self._checkpoints.forget_before(self.standing.checkpoint_entry)
        self._delta_log.forget_journal(self._checkpoints.oldest_entry())

    def unforgotten(self, groups: Groups, times_us_G: NDArray[np.int64]) -> Groups:
        """Those of the groups that are not of people who were forgotten since."""
        if not len(self._forgotten):
            return groups
        return groups.at(np.flatnonzero(~self._forgotten.are_of_one(groups.owners_G, times_us_G)))

    def learn_rows(self, groups: Groups, complete_offset: int) -> None:
        """Learns training rows of the ranker network, all there are up to an offset."""
        self.ranker.learn(groups)
        self.standing = replace(self.standing, rows_offset=max(self.standing.rows_offset, complete_offset))
        self._count()

    def checkpoint(self) -> None:
        """Keeps the state; journal entries that no kept checkpoint needs are dropped.

        Nothing is kept when an act broke off: what it had changed would be learned twice.
        """
        if not self._is_whole:
            log.error("checkpoint_refused", extra={"reason": "an act of learning broke off"})
            return
        standing = self.standing
        kept = {name: getattr(standing, name) for name in _KEPT_FACTS}
        encoder = asdict(self.learner.catalogue.encoder.name)
        facts = {"form": self._form(), "text_encoder": encoder, "feature_schema": FEATURE_SCHEMA, "standing": kept}
        self._checkpoints.save(standing.entry, facts, gathered(self._parts))
        self._delta_log.forget_journal(self._checkpoints.oldest_entry())
        self.standing = replace(standing, checkpoint_entry=standing.entry, checkpoint_offset=standing.offset)

    def look(self, with_digest: bool = True) -> Look:
        """Everything as of one moment; the digest only when it is asked for, since it reads every vector."""
        with self._changing:
            standing, live = self.standing, self.learner.sent.all()
            space, _, last_sequence = self._delta_log.bounds()
        return Look(standing, space, last_sequence, vectors_digest(live) if with_digest else "", len(live))

    def _new_products(self, records: Slice) -> Sequence[Product]:
        return [product for product in records.products if product.offset > self.standing.products_offset]

    def _learn(self, kind: str, records: Slice, traceparent: str = "") -> int:
        deltas, standing = self._act(kind, records)
        self._commit(kind, deltas, standing, records, traceparent)
        return len(deltas)

    def _act(self, kind: str, records: Slice) -> tuple[Deltas, Standing]:
        """What an entry of this kind sends, and the standing once it is durable.

        All processes of the learner do it together. PeerError: one is gone or found something else.
        """
        self._is_whole = False
        self._peers.tell(Act(kind, records.after, records.until, self.standing.entry + 1))
        deltas, standing = self._acted(kind, records)
        self._peers.agree(deltas.digest)
        return deltas, standing

    def _acted(self, kind: str, records: Slice) -> tuple[Deltas, Standing]:
        if kind == PRODUCTS:
            deltas = self.learner.learn_products(self._new_products(records))
            return deltas, replace(self.standing, products_offset=records.until)
        if kind == EVENTS:
            return self._learn_events(records)
        if kind == DRIFT:
            self._read_gauge()
            return self.learner.drifted(), self.standing
        if kind == ERASE:
            return self._erase(records)
        return Deltas.empty(self._settings.dimension), self.standing

    def _erase(self, records: Slice) -> tuple[Deltas, Standing]:
        for erasure in records.erasures:
            if erasure.key_fingerprint != self._privacy.fingerprint:
                facts = {"erasure": erasure.id, "wanted": erasure.key_fingerprint, "own": self._privacy.fingerprint}
                log.error("privacy_key_differs", extra=facts)
            self._forgotten.add(erasure)
            erased = self.learner.erase(erasure) | {
                "waiting_impressions": self._impressions.erase(erasure),
                "ranker_groups": self.ranker.erase(erasure.owners),
            }
            self.erased[erasure.id] = erased
        offset, products = records.until, max(records.until, self.standing.products_offset)
        return Deltas.empty(self._settings.dimension), replace(self.standing, offset=offset, products_offset=products)

    def _read_gauge(self) -> None:
        begun = time.perf_counter()
        reading = self.learner.measure()
        if reading is not None:
            facts = {"windows": len(self.learner.gauge), "seconds": round(time.perf_counter() - begun, 3)}
            log.info("gauge_read", extra=facts | reading.metrics())

    def _learn_events(self, records: Slice) -> tuple[Deltas, Standing]:
        standing = self.standing
        if not self._settings.mirrored:
            records = self._share.of(records)
        learned = self.learner.learn(records, standing.slices + 1)
        self.ranker.learn(self._impressions.fold(records.impressions, records.events))
        if learned.skipped_steps:
            log.error("steps_skipped", extra={"steps": learned.skipped_steps, "until": records.until})
        return learned.deltas, replace(
            standing,
            offset=records.until,
            products_offset=max(records.until, standing.products_offset),
            slices=standing.slices + 1,
            examples=standing.examples + learned.examples,
            loss=learned.loss or standing.loss,
        )

    def _commit(self, kind: str, deltas: Deltas, standing: Standing, records: Slice, traceparent: str = "") -> None:
        entry = Entry(standing.entry + 1, kind, records.after, records.until, deltas.digest())
        with self._changing:
            self._delta_log.commit(
                entry,
                deltas,
                # after a slice's products its events are still to be learned: the vectors reflect the slice before
                log_offset=standing.offset,
                traceparent=traceparent,
                append_time_us=min(records.append_times_us, default=0),
            )
            self._note(entry, deltas, standing)
        self._count()

    def _note(self, entry: Entry, deltas: Deltas, standing: Standing) -> None:
        """What follows from an entry that is durable."""
        self.learner.sent.note(deltas)
        if entry.kind == DRIFT:
            # a release of these vectors is written next
            self.learner.anchor.hold(self.learner.sent.dense())
        elif entry.kind == ROTATE:
            self.learner.anchor.free()
        self.standing = replace(standing, entry=entry.number)
        self._is_whole = True

    def _count(self) -> None:
        self.standing = replace(
            self.standing,
            rows=self.ranker.rows,
            ranker_loss=self.ranker.loss,
            last_sequence=self._delta_log.last_sequence,
            quality=tuple(self.learner.prequential.by_week()),
            overall=self.learner.prequential.overall(),
            rate=self.learner.rate_control.multiplier,
            drifts=self.learner.rate_control.drifts,
            wants_rotation=self.learner.rate_control.wants_rotation,
            gauge=self.learner.gauge.reading,
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
