"""The user tower in numpy beside the one in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headrace.model.towers import CHANNELS, EVENT_CODES, GAP_BUCKETS, TowerShape, UserTower
from headrace.model.user_encoder import UserEncoder


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("habit", [True, False])
def test_it_finds_what_the_tower_finds(blocks: int, heads: int, habit: bool) -> None:
    torch.manual_seed(blocks)
    shape = TowerShape(dimension=32, blocks=blocks, heads=heads, max_length=12, habit=habit)
    tower = UserTower(shape).eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    encoder, rng = UserEncoder(tower), np.random.default_rng(5)
    for length in (0, 1, 2, 7, 12):
        vectors = rng.standard_normal((length, 32)).astype(np.float32)
        types, channels = rng.integers(0, EVENT_CODES, length), rng.integers(0, CHANNELS, length)
        gaps, wait = rng.integers(0, GAP_BUCKETS, length), int(rng.integers(0, GAP_BUCKETS))

        with torch.inference_mode():
            rows = (torch.from_numpy(column)[None] for column in (vectors, types, channels, gaps))
            expected = tower.wants(tower(*rows)[0, -1:], torch.tensor([wait]))[0].numpy()

        found = encoder.wants(vectors, types, channels, gaps, wait)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
