"""Three towers over one space: what an item is, what a person wants next, what words ask for.

An item's vector is a projection of its content plus a learned row of its own (zero until it is learned
from), brought to length 1: a new product has a vector at once, and a popular one is not longer than it
(NISER, Gupta et al. 2019). The user tower is a causal Transformer over recent events (SASRec, Kang and
McAuley 2018) and holds nothing of a person: a new event moves the vector without training. What it wants
is a direction times a learned temperature. The query tower projects text into the same space.

Shapes: B batch, L sequence, D width, H heads, T text width, P pairs, N items, Q queries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

GAP_BUCKETS = 32
EVENT_CODES = 8
CHANNELS = 16
# paths are kept to this many levels, and products to this many attributes
CATEGORY_LEVELS = 4
ATTRIBUTES = 8
# what item vectors are like: those of one space are all of one form
VECTOR_FORM = "unit length"
# scores of vectors of length 1 begin within ± 12, unless they are told to begin elsewhere
_TEMPERATURE = 12.0


@dataclass(frozen=True, slots=True)
class TowerShape:
    """Sizes that fix the form of every weight; travels with a release."""

    dimension: int = 64
    blocks: int = 1
    heads: int = 1
    max_length: int = 50
    text_width: int = 64
    brand_buckets: int = 512
    category_buckets: int = 1024
    price_buckets: int = 64
    attribute_buckets: int = 2048
    # whether the sum of what was seen goes straight into what is wanted
    habit: bool = True


@dataclass(frozen=True, slots=True)
class ItemContent:
    """What is known of N items without any behaviour; bucket 0 means unknown."""

    text_NT: Tensor
    brand_N: Tensor
    category_NC: Tensor  # CATEGORY_LEVELS columns, from the top of the path down
    price_N: Tensor
    attributes_NA: Tensor  # ATTRIBUTES columns, in no order


class ItemTower(nn.Module):
    """Vectors of items, of length 1, from their content and their own learned rows."""

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        self.text = nn.Linear(shape.text_width, shape.dimension)
        self.brand = nn.Embedding(shape.brand_buckets, shape.dimension)
        self.category = nn.Embedding(shape.category_buckets, shape.dimension, padding_idx=0)
        self.price = nn.Embedding(shape.price_buckets, shape.dimension)
        self.attribute = nn.Embedding(shape.attribute_buckets, shape.dimension, padding_idx=0)
        nn.init.normal_(self.text.weight, std=0.6 / shape.dimension**0.5)
        # never the zero vector, which an index refuses
        nn.init.normal_(self.text.bias, std=0.02)
        for table in (self.brand, self.category, self.price, self.attribute):
            nn.init.normal_(table.weight, std=0.02)
        for table in (self.category, self.attribute):
            nn.init.zeros_(table.weight[0])

    def forward(self, content: ItemContent, own_ND: Tensor) -> Tensor:
        """N × D; `own_ND` are the items' own rows, zeros for items that nothing was learned from."""
        text_ND = self.text(content.text_NT)
        category_ND = self.category(content.category_NC).sum(dim=1)
        attributes_ND = self.attribute(content.attributes_NA).sum(dim=1)
        named_ND = self.brand(content.brand_N) + category_ND + self.price(content.price_N) + attributes_ND
        content_ND = text_ND + named_ND
        return functional.normalize(content_ND + own_ND, dim=-1)


class UserTower(nn.Module):
    """A causal Transformer (pre-norm, SwiGLU) over item vector + event type + channel + time gap + place.

    The first place holds a learned beginning, so that a person without history has a vector too.
    The time since the last event scales and shifts the answer: what follows in the same visit is not
    what follows a month later. `dropout` acts while training only.
    """

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        width = shape.dimension
        self.item = nn.Linear(width, width)
        self.event_type = nn.Embedding(EVENT_CODES, width)
        self.channel = nn.Embedding(CHANNELS, width)
        self.gap = nn.Embedding(GAP_BUCKETS, width)
        self.place = nn.Embedding(shape.max_length + 1, width)
        self.beginning = nn.Parameter(torch.empty(width))
        self.dropout = nn.Dropout(0.0)
        self.blocks = nn.ModuleList(UserBlock(width, shape.heads) for _ in range(shape.blocks))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.log_temperature = nn.Parameter(torch.full((1,), math.log(_TEMPERATURE)))
        self.has_habit = shape.habit
        self.wait_gain = nn.Embedding(GAP_BUCKETS, width)
        self.wait_shift = nn.Embedding(GAP_BUCKETS, width)
        self.habit_gain = nn.Embedding(GAP_BUCKETS, width)
        self.out = nn.Linear(width, width)
        self._initialise()

    def _initialise(self) -> None:
        for table in (self.event_type, self.channel, self.gap, self.place):
            nn.init.normal_(table.weight, std=0.02)
        nn.init.normal_(self.beginning, std=width_scale(len(self.beginning)))
        nn.init.constant_(self.habit_gain.weight, 0.5)
        nn.init.zeros_(self.wait_gain.weight)
        nn.init.zeros_(self.wait_shift.weight)
        # the residual stream begins as item space: before any training a person is the mean of what they saw
        for line in (self.item, self.out):
            nn.init.eye_(line.weight)
            nn.init.zeros_(line.bias)

    def begin_at(self, temperature: float) -> None:
        """Sets what is learned from there on: scores lie within ± it."""
        with torch.no_grad():
            self.log_temperature.fill_(math.log(temperature))

    def forward(self, vectors_BLD: Tensor, types_BL: Tensor, channels_BL: Tensor, gaps_BL: Tensor) -> Tensor:
        """B × (L + 1) × 2D: state i has seen the beginning and the first i events.

        The second half is the sum of the items seen over the root of their number: with it a habit is one
        product away, where attention alone takes long to learn to copy.

        Sequences shorter than L stand at the left: no state looks to the right, so padding needs no mask.
        """
        events_BLD = self.item(vectors_BLD) + self.event_type(types_BL) + self.channel(channels_BL) + self.gap(gaps_BL)
        first_B1D = self.beginning.expand(len(vectors_BLD), 1, -1)
        states = torch.cat([first_B1D, events_BLD], dim=1)
        states = self.dropout(states + self.place.weight[: states.shape[1]])
        for block in self.blocks:
            states = block(states)
        return torch.cat([states, _habits(vectors_BLD)], dim=-1)

    def wants(self, states_P2D: Tensor, waits_P: Tensor) -> Tensor:
        """P × D in item space: what a person in each state wants after a wait (a gap bucket)."""
        seen_PD, habit_PD = states_P2D.chunk(2, dim=-1)
        gained_PD = self.norm(seen_PD) * (1 + self.wait_gain(waits_P)) + self.wait_shift(waits_P)
        wants_PD = functional.normalize(self.out(gained_PD), dim=-1)
        if self.has_habit:
            wants_PD = wants_PD + habit_PD * self.habit_gain(waits_P)
        return wants_PD * self.log_temperature.exp()


def _habits(vectors_BLD: Tensor) -> Tensor:
    """B × (L + 1) × D: the sum of the first i rows over √i at i; zeros at 0."""
    counts_L = torch.arange(1, vectors_BLD.shape[1] + 1)
    habits_BLD = vectors_BLD.cumsum(dim=1) / counts_L[:, None].sqrt()
    return functional.pad(habits_BLD, (0, 0, 1, 0))


def width_scale(width: int) -> float:
    """The spread of each of `width` numbers whose vector has a length of about 1."""
    return float(width**-0.5)


class UserBlock(nn.Module):
    """Causal attention over the states so far, then a gated network of each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = nn.Dropout(0.0)
        hidden = width * 2
        self.attention_norm = nn.RMSNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.gate_norm = nn.RMSNorm(width, eps=1e-6)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        for line in (self.qkv, self.gate_up):
            nn.init.normal_(line.weight, std=width**-0.5)
        for line in (self.attention_out, self.down):
            nn.init.normal_(line.weight, std=0.1 * width**-0.5)

    def forward(self, states_BLD: Tensor) -> Tensor:
        states_BLD = states_BLD + self.dropout(self._attended(self.attention_norm(states_BLD)))
        gate, up = self.gate_up(self.gate_norm(states_BLD)).chunk(2, dim=-1)
        return cast(Tensor, states_BLD + self.dropout(self.down(functional.silu(gate) * up)))

    def _attended(self, states_BLD: Tensor) -> Tensor:
        batch, length, width = states_BLD.shape
        qkv = self.qkv(states_BLD).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return cast(Tensor, self.attention_out(attended.transpose(1, 2).reshape(batch, length, width)))


class QueryTower(nn.Module):
    """Text vectors projected into item space: a direction times a learned temperature."""

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        self.text = nn.Linear(shape.text_width, shape.dimension)
        self.log_temperature = nn.Parameter(torch.full((1,), math.log(_TEMPERATURE)))
        nn.init.normal_(self.text.weight, std=0.6 / shape.dimension**0.5)
        nn.init.zeros_(self.text.bias)

    def begin_as(self, items: ItemTower) -> None:
        """Starts from the items' own projection of text, so that words find titles before any training."""
        with torch.no_grad():
            self.text.weight.copy_(items.text.weight)

    def forward(self, text_QT: Tensor) -> Tensor:
        """Q × D."""
        return functional.normalize(self.text(text_QT), dim=-1) * self.log_temperature.exp()


class Towers(nn.Module):
    """The three towers of one space."""

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        self.shape = shape
        self.item = ItemTower(shape)
        self.user = UserTower(shape)
        self.query = QueryTower(shape)
        self.query.begin_as(self.item)


def gap_buckets(gaps_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Buckets of time gaps by powers of two of a second: 0 s is 1, a year is 26; 0 is kept for "none".

    >>> gap_buckets(np.array([0, 1_000_000, 3_600_000_000])).tolist()
    [1, 2, 12]
    """
    seconds = np.maximum(gaps_us, 0) / 1e6
    return np.minimum(np.log2(seconds + 1).astype(np.int64) + 1, GAP_BUCKETS - 1)


def event_gaps(times_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of the time before each event along the last axis; 0 for the first."""
    gaps = np.zeros(times_us.shape, dtype=np.int64)
    gaps[..., 1:] = gap_buckets(np.diff(times_us, axis=-1))
    return gaps
