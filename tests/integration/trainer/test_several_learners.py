"""Several processes learn what one learns, and lose nothing when one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from safetensors.numpy import load as load_arrays

from headrace.cli.suite import free_ports
from headrace.runtime.channels import open_channel
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.deltas import Deltas, Sent, vectors_digest
from headrace.v1 import trainer_pb2, trainer_pb2_grpc

WORKER = Path(__file__).with_name("learn_worker.py")
_SLICE = 40
_LIMIT_S = 60.0
# gradients are added up in another order: measured 7e-7 for losses around 4, 8e-8 for vectors of length 1
_TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
_SETTINGS = {
    "HEADRACE_TRAINER_INDEX_ADDRESS": "127.0.0.1:1",
    "HEADRACE_TRAINER_FEATURE_STORE_ADDRESS": "127.0.0.1:1",
    "HEADRACE_TRAINER_DIMENSION": "8",
    "HEADRACE_TRAINER_MAX_LENGTH": "8",
    "HEADRACE_TRAINER_TEXT_WIDTH": "8",
    "HEADRACE_TRAINER_UNIFORM_NEGATIVES": "16",
    "HEADRACE_TRAINER_POPULAR_NEGATIVES": "16",
    "HEADRACE_TRAINER_SLICE_EVENTS": str(_SLICE),
    "HEADRACE_TRAINER_CATCH_UP_SLICE_EVENTS": str(_SLICE),
    "HEADRACE_TRAINER_CHECKPOINT_EVERY_S": "0.5",
    "HEADRACE_TRAINER_PUBLISH_EVERY_S": "3600",
}
_LOSS_TOLERANCE, _VECTOR_TOLERANCE = 1e-5, 1e-5


def _environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return kept | {"OMP_NUM_THREADS": "1"} | more


def _learned_by(processes: int, folder: Path, settings: dict[str, object]) -> list[dict[str, np.ndarray]]:
    """What each process holds after learning the folder's log."""
    results = [folder / f"{processes}-{rank}.npz" for rank in range(processes)]
    group = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0])}
    running = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), str(result), str(_SLICE), json.dumps(settings)],
            env=_environment(RANK=str(rank), **group),
        )
        for rank, result in enumerate(results)
    ]
    assert [process.wait(_LIMIT_S) for process in running] == [0] * processes
    return [dict(np.load(result)) for result in results]


@pytest.mark.parametrize("more", [{}, {"distillation": 0.5, "own_dropout": 0.3, "reversed_share": 0.3}])
async def test_two_processes_learn_what_one_learns(suite, tmp_path: Path, more: dict[str, object]) -> None:
    await suite.write([*suite.products(), *suite.visits(100, length=4)])
    # what is left out at random differs from process to process, so nothing is
    settings = suite.settings(dropout=0.0, input_dropout=0.0, **more).model_dump(mode="json")
    [alone], ranks = _learned_by(1, tmp_path, settings), _learned_by(2, tmp_path, settings)
    for name, value in ranks[0].items():
        np.testing.assert_array_equal(value, ranks[1][name], err_msg=name)
    np.testing.assert_allclose(ranks[0]["losses"], alone["losses"], rtol=0, atol=_LOSS_TOLERANCE)
    np.testing.assert_allclose(ranks[0]["vectors"], alone["vectors"], rtol=0, atol=_VECTOR_TOLERANCE)


async def test_two_processes_retrain_from_the_log(suite, tmp_path: Path) -> None:
    await suite.write([*suite.products(), *suite.visits(50)])
    alone, its_vectors = _retrained((), tmp_path, tmp_path / "alone")
    together, their_vectors = _retrained(_TORCHRUN, tmp_path, tmp_path / "together")
    assert together["examples"] == alone["examples"]
    np.testing.assert_allclose(together["losses"], alone["losses"], rtol=0, atol=_LOSS_TOLERANCE)
    np.testing.assert_allclose(their_vectors, its_vectors, rtol=0, atol=_VECTOR_TOLERANCE)


def _retrained(starter: Sequence[str], data_dir: Path, out: Path) -> tuple[dict[str, object], np.ndarray]:
    """The one report that there is, however many processes made it, and the vectors."""
    command = ["train", "--from-scratch", "--json", "--epochs=2", "--data-dir", str(data_dir), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, *starter, "-m", "headrace.cli.main", *command],
        env=_environment(**_SETTINGS, HEADRACE_TRAINER_DROPOUT="0", HEADRACE_TRAINER_INPUT_DROPOUT="0"),
        stdout=subprocess.PIPE,
        check=True,
        timeout=_LIMIT_S,
    )
    return json.loads(done.stdout), load_arrays((out / "vectors.safetensors").read_bytes())["vectors"]


class Torchrun:
    """The trainer as torchrun runs it: two processes, started anew when one of them dies."""

    def __init__(self, suite, folder: Path) -> None:
        self._suite = suite
        self.port, self._log = free_ports(1)[0], folder / "torchrun.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *_TORCHRUN, "--max-restarts=3", "-m", "headrace.trainer"],
                env=_environment(**_SETTINGS, HEADRACE_DATA_DIR=str(folder), HEADRACE_TRAINER_PORT=str(self.port)),
                stderr=log,
            )

    def rank(self, rank: int) -> psutil.Process:
        workers = psutil.Process(self.process.pid).children()
        [found] = [worker for worker in workers if worker.environ().get("RANK") == str(rank)]
        return found

    def events(self, name: str) -> list[dict[str, object]]:
        """What any of its processes logged under a name."""
        lines = [line for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    async def status(self) -> trainer_pb2.GetTrainingStatusResponse | None:
        """None while nobody answers."""
        assert self.process.poll() is None, self._log.read_text()
        async with open_channel(f"127.0.0.1:{self.port}") as channel:
            stub = trainer_pb2_grpc.TrainerServiceStub(channel)
            try:
                return await stub.GetTrainingStatus(trainer_pb2.GetTrainingStatusRequest(with_digest=True), timeout=2)
            except grpc.aio.AioRpcError:
                return None

    async def reached(self, offset: int, instance: int = 1) -> trainer_pb2.GetTrainingStatusResponse:
        """The status once rank 0, started for the n-th time, has learned up to an offset."""

        async def probe() -> trainer_pb2.GetTrainingStatusResponse | None:
            status = await self.status() if len(self.events("serving")) >= instance else None
            return status if status is not None and status.offset >= offset else None

        return await self._suite.until(probe, _LIMIT_S)

    def stop(self) -> None:
        workers = psutil.Process(self.process.pid).children()
        self.process.terminate()
        self.process.wait(_LIMIT_S)
        assert not any(worker.is_running() for worker in workers)


@pytest.mark.parametrize("killed", [0, 1])
async def test_a_killed_process_loses_nothing_and_doubles_nothing(suite, tmp_path: Path, killed: int) -> None:
    before, amid, after = [*suite.products(), *suite.visits(25)], suite.visits(200), suite.visits(50)
    end = len(before) + len(amid) + len(after)
    assert not any(len(records) % _SLICE for records in (before, amid, after))
    await suite.write(before)
    torchrun = Torchrun(suite, tmp_path)
    try:
        await torchrun.reached(len(before))
        await suite.write(amid)
        await torchrun.reached(len(before) + _SLICE)
        torchrun.rank(killed).send_signal(signal.SIGKILL)
        await suite.write(after)
        status = await torchrun.reached(end, instance=2)
        assert status.log_end_offset == end
    finally:
        torchrun.stop()
    assert len(torchrun.events("stopped")) == 1
    assert [(event["different"], event["appended"]) for event in torchrun.events("recovered")] == [(0, 0), (0, 0)]

    settings = suite.settings().model_dump(mode="json")
    calm, _ = _learned_by(2, tmp_path, settings)
    checkpoint = Checkpoints(tmp_path / "trainer" / "checkpoints").newest()
    assert checkpoint.facts["standing"]["offset"] == end
    assert checkpoint.facts["standing"]["slices"] == end // _SLICE
    for name in calm.keys() - {"losses", "vectors"}:
        # a release sends all that drifted and reads the gauge, at its own time
        if not name.startswith(("sent.", "gauge.")):
            np.testing.assert_array_equal(checkpoint.arrays[f"learner.{name}"], calm[name], err_msg=name)
    assert _digest_of_deltas(tmp_path, status.delta_sequence) == status.vectors_digest


def _digest_of_deltas(folder: Path, last_sequence: int) -> str:
    """Of the vectors that follow from applying the delta log, row by row, without a gap."""
    log, sent = DeltaLog(folder / "trainer" / "deltas.db", "main", 8), Sent(8)
    sequence = 0
    while batch := log.batch_after(sequence):
        assert batch.first_sequence == sequence + 1
        ordinals, tombstones = np.frombuffer(batch.ordinals, "<u4"), np.frombuffer(batch.tombstones, np.uint8)
        sent.note(Deltas(ordinals, np.frombuffer(batch.vectors, "<f4").reshape(-1, 8), tombstones))
        sequence = batch.last_sequence
    log.close()
    assert sequence == last_sequence
    return vectors_digest(sent.all())
