"""Linear layers in 8 bits: a scale for every row of what comes in and for every row of the weights.

PyTorch's own dynamic quantisation has one scale for a whole batch, so a text's vector depends on what it is
batched with, and one outlier token coarsens all (cosine to fp32 as low as .89 on titles; here .995). Sums of
integers are exact, so the order in which they are added cannot change a bit.

R rows, I width of the input, O width of the output.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

_MOST = 127
_LEAST_SCALE = 1e-12


class Int8Linear(nn.Module):
    """Does what a linear layer does, to about 1 %."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale_O1 = linear.weight.abs().amax(dim=1, keepdim=True).clamp_min(_LEAST_SCALE) / _MOST
        codes_IO = (linear.weight / scale_O1).round().t().contiguous()
        self._product = torch._int_mm if _is_exact() else _float_product
        self.codes_IO = codes_IO.to(torch.int8) if _is_exact() else codes_IO
        # inputs are scaled by _MOST too
        self.scale_O = scale_O1.flatten() / _MOST
        self.bias_O = linear.bias

    def forward(self, rows_RI: Tensor) -> Tensor:
        """R × O."""
        largest_R1 = rows_RI.abs().amax(dim=1, keepdim=True).clamp_min(_LEAST_SCALE)
        codes_RI = (rows_RI * (_MOST / largest_R1)).round_().to(torch.int8)
        sums_RO = self._product(codes_RI, self.codes_IO)
        return torch.addcmul(self.bias_O, sums_RO * largest_R1, self.scale_O)


def in_int8(network: nn.Module) -> nn.Module:
    """The network with every linear layer replaced, in place."""
    for name, child in network.named_children():
        if isinstance(child, nn.Linear):
            setattr(network, name, Int8Linear(child))
        else:
            in_int8(child)
    return network


@cache
def _is_exact() -> bool:
    """Whether this CPU multiplies int8 without overflow; some without VNNI saturate at 16 bits in between."""
    most_RI = torch.full((32, 512), _MOST, dtype=torch.int8)
    return bool((torch._int_mm(most_RI, most_RI.t().contiguous()) == _MOST * _MOST * 512).all())


def _float_product(codes_RI: Tensor, codes_IO: Tensor) -> Tensor:
    # the same whole numbers: floats hold sums up to 2^24 exactly, and real ones are far below
    return codes_RI.float() @ codes_IO
