"""The ranker network learns the rows of a real feature store; retraining learns the whole log anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from headrace.model.serving_model import PARTS, TEXT_PART, ServingModel
from headrace.runtime.errors import NotFoundError
from headrace.runtime.settings import CommonSettings
from headrace.trainer.retrain import Progress, retrain
from headrace.v1 import trainer_pb2


async def test_rows_are_learned_as_visits_close(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(60)])
    async with (
        suite.feature_store() as features,
        suite.trainer(feature_store_address=features.address) as stub,
    ):
        before = await suite.learned(stub)

        async def are_learned():
            status = await stub.GetTrainingStatus(trainer_pb2.GetTrainingStatusRequest(with_digest=True))
            return status if status.rows_offset == before.offset and status.rows else None

        status = await suite.until(are_learned)
        assert status.ranker_loss > 0
    async with suite.trainer() as stub:

        async def is_kept() -> bool:
            found = await stub.GetTrainingStatus(trainer_pb2.GetTrainingStatusRequest(with_digest=True))
            return (found.rows, found.rows_offset) == (status.rows, status.rows_offset)

        await suite.until(is_kept)


async def test_retraining_writes_the_parts_of_a_release(suite, tmp_path: Path) -> None:
    await suite.write([*suite.products(), *suite.visits(60)])
    said: list[Progress] = []
    out = tmp_path / "retrained"
    report = _retrained(suite, out, said)
    model = ServingModel.load({name: (out / name).read_bytes() for name in (*PARTS, TEXT_PART)})
    model.check_golden()
    vectors = load_file(out / "vectors.safetensors")
    assert (report.items, report.epochs, [progress.epoch for progress in said]) == (20, 3, [1, 2, 3])
    assert report.losses[-1] < report.losses[0]
    assert vectors["ordinals"].tolist() == list(range(20))
    assert np.isfinite(vectors["vectors"]).all()


def _retrained(suite, out: Path, said: list[Progress]):
    from concurrent.futures import ThreadPoolExecutor

    # the test's own event loop runs in this thread
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(retrain, suite.common, out, suite.settings(), epochs=3, on_progress=said.append)
        return work.result()


def test_retraining_needs_a_log(suite, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no event log"):
        retrain(CommonSettings(data_dir=tmp_path), tmp_path / "out", suite.settings())
