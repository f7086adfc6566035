"""What every kind of peers promises, and what a learner does when its peers fail it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from headrace.trainer.acts import BEAT, Act
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.distributed import Distributed, joined
from headrace.trainer.lineage import Lineage
from headrace.trainer.peers import Alone, PeerError, Peers
from headrace.trainer.settings import TrainerSettings


@pytest.fixture(params=["alone", "distributed"])
def peers(request: pytest.FixtureRequest) -> Iterator[Peers]:
    """Either kind, with nobody else; tests/integration has them in company."""
    if request.param == "alone":
        yield Alone()
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Distributed()
    if dist.is_initialized():
        dist.destroy_process_group()


def test_the_only_process_is_rank_0_and_works_on_every_window(peers: Peers) -> None:
    assert peers.rank == 0
    assert peers.share(5).tolist() == [0, 1, 2, 3, 4]
    assert peers.share(0).tolist() == []


def test_sums_of_one_are_what_it_gave(peers: Peers) -> None:
    moving, still = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))
    moving.grad = torch.arange(6.0).view(2, 3)
    rows, loss = peers.summed([moving, still], np.full((3, 2), 0.5, np.float32), 1.25)
    assert moving.grad.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert still.grad is None
    assert rows.tolist() == [[0.5, 0.5]] * 3
    assert loss == 1.25


def test_one_agrees_with_itself_and_parts(peers: Peers) -> None:
    peers.tell(Act(BEAT))
    peers.agree(lambda: "found")
    peers.leave()


@pytest.mark.parametrize("environment", [{}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_a_process_without_others_is_alone(environment: dict[str, str]) -> None:
    assert isinstance(joined(environment), Alone)


class _Forsaken(Alone):
    """Loses the others at the end of the second act."""

    def __init__(self) -> None:
        self._acts = 0

    def agree(self, finding: Callable[[], str]) -> None:
        self._acts += 1
        if self._acts > 2:  # the first is the loading of nothing
            raise PeerError("rank 1 is gone")


def test_an_act_that_breaks_off_leaves_nothing_behind(tmp_path: Path, settings: TrainerSettings, shop: object) -> None:
    delta_log, checkpoints = DeltaLog(tmp_path / "deltas.db", "main", settings.dimension), Checkpoints(tmp_path)
    lineage = Lineage(settings, delta_log, checkpoints, peers=_Forsaken())
    lineage.load()
    records = replace(shop.visits(1, 6), products=shop.products())
    lineage.learn_products(records)
    before = delta_log.last_sequence
    with pytest.raises(PeerError, match="rank 1 is gone"):
        lineage.learn(records)
    # half of the slice is in the state: kept, it would be learned twice
    lineage.checkpoint()
    assert checkpoints.newest() is None
    assert delta_log.last_sequence == before
    assert [entry.kind for entry in delta_log.journal(0)] == ["products"]
    delta_log.close()
