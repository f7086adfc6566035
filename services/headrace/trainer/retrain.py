"""Full retraining: fresh weights over the whole log in shuffled epochs, the rival of learning as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.numpy import save as save_arrays

from headrace.runtime.atomic import write_atomically
from headrace.runtime.eventlog import EventLog
from headrace.runtime.eventlog.opening import open_event_log, require_event_log
from headrace.runtime.settings import CommonSettings
from headrace.trainer.catalogue_text import pretrained_encoder
from headrace.trainer.learner import Learner
from headrace.trainer.peers import Alone, Peers
from headrace.trainer.ranker_learner import RankerLearner
from headrace.trainer.records import Slice, slice_of
from headrace.trainer.releases import checked_parts
from headrace.trainer.sequences import Windows
from headrace.trainer.settings import TrainerSettings

EPOCHS = 5
_READ = 5_000


@dataclass(frozen=True, slots=True)
class RetrainReport:
    """What a retraining did and where its release parts are."""

    folder: Path
    log_offset: int
    items: int
    epochs: int
    examples: int
    # mean loss of each epoch
    losses: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Said after each epoch."""

    epoch: int
    epochs: int
    loss: float
    seconds: float


def retrain(
    common: CommonSettings,
    out_dir: Path,
    settings: TrainerSettings,
    *,
    epochs: int = EPOCHS,
    on_progress: Callable[[Progress], None] = lambda _: None,
    peers: Peers | None = None,
) -> RetrainReport:
    """Learns the log that `common` names from nothing and writes the parts of a release into `out_dir`.

    Beside the parts stands `vectors.safetensors`: `ordinals` and `vectors` of every item. The ranker
    network needs the feature store's rows and begins anew. Of several `peers`, who all do this, rank 0 writes.
    NotFoundError: there is no such log.
    """
    require_event_log(common)
    torch.set_num_threads(1)
    begun = time.perf_counter()
    peers = peers or Alone()
    learner = Learner(settings, pretrained_encoder(settings), peers)
    windows, offset = asyncio.run(_gathered(common, learner, settings))
    losses: list[float] = []
    examples = 0
    for epoch, learned in enumerate(learner.retrain(windows, epochs), start=1):
        learner.sent.note(learned.deltas)
        losses.append(learned.loss)
        examples += learned.examples
        on_progress(Progress(epoch, epochs, learned.loss, time.perf_counter() - begun))
    if peers.rank == 0:
        _write(out_dir, learner, settings)
    peers.leave()
    seconds = time.perf_counter() - begun
    return RetrainReport(out_dir, offset, learner.catalogue.count, epochs, examples, tuple(losses), seconds)


async def _gathered(common: CommonSettings, learner: Learner, settings: TrainerSettings) -> tuple[Windows, int]:
    log = open_event_log(common)
    windows, offset = [Windows.empty(0, settings.max_length + 1)], 0
    try:
        async for records in _slices(log):
            windows.append(learner.gather(records))
            offset = records.until
    finally:
        await log.close()
    return Windows.concatenated(windows), offset


async def _slices(log: EventLog) -> AsyncIterator[Slice]:
    offset = 0
    while records := await log.read(offset, limit=_READ):
        yield slice_of(records, offset, records[-1].offset)
        offset = records[-1].offset


def _write(out_dir: Path, learner: Learner, settings: TrainerSettings) -> None:
    for name, data in checked_parts(settings.lineage, learner, RankerLearner(settings)).items():
        write_atomically(out_dir / name, data)
    live = learner.sent.all()
    write_atomically(out_dir / "vectors.safetensors", save_arrays({"ordinals": live.ordinals, "vectors": live.vectors}))
