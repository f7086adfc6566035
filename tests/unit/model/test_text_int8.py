"""Linear layers in 8 bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from headrace.model.text import int8
from headrace.model.text.int8 import Int8Linear, in_int8


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(64, 48).requires_grad_(False)


def _rows(count: int) -> torch.Tensor:
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(4))


def test_it_answers_as_the_layer_does_to_about_a_hundredth(linear: nn.Linear) -> None:
    expected, found = linear(_rows(30)), Int8Linear(linear)(_rows(30))
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_a_row_does_not_feel_the_rows_beside_it(linear: nn.Linear) -> None:
    rows, layer = _rows(30), Int8Linear(linear)
    rows[7] *= 1e4
    assert torch.equal(layer(rows)[3:4], layer(rows[3:4]))


def test_zeros_are_the_bias(linear: nn.Linear) -> None:
    assert torch.equal(Int8Linear(linear)(torch.zeros(2, 64)), linear.bias.expand(2, -1))


def test_a_cpu_that_cannot_multiply_bytes_exactly_gets_the_same_from_floats(
    linear: nn.Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Int8Linear(linear)
    monkeypatch.setattr(int8, "_is_exact", lambda: False)
    assert torch.equal(Int8Linear(linear)(_rows(30)), layer(_rows(30)))


def test_every_linear_layer_of_a_network_is_replaced(linear: nn.Linear) -> None:
    network = in_int8(nn.Sequential(linear, nn.ModuleDict({"deep": nn.Linear(48, 2)}), nn.GELU()))
    assert not any(isinstance(module, nn.Linear) for module in network.modules())
