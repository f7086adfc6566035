"""The network of BERT (Devlin et al. 2019), as sentence encoders use it: mean over tokens, length 1.

Texts of a call have equally many tokens. So nothing is padded, no mask is needed, and what a text is batched
with cannot reach it.

B texts, L tokens, R = B·L rows, W width, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class BertShape:
    """Sizes, as `config.json` gives them."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    places: int
    kinds: int
    epsilon: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> BertShape:
        """ValueError: something else than a BERT. KeyError, TypeError: a size is missing or not a number."""
        for key, known in (("model_type", "bert"), ("hidden_act", "gelu")):
            if config[key] != known:
                raise ValueError(f"{key} is {config[key]!r}, this code knows {known!r}")
        return cls(
            vocabulary=int(config["vocab_size"]),
            width=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            inner=int(config["intermediate_size"]),
            places=int(config["max_position_embeddings"]),
            kinds=int(config["type_vocab_size"]),
            epsilon=float(config["layer_norm_eps"]),
        )


class Bert(nn.Module):
    """Token numbers to one vector a text."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.places = nn.Embedding(shape.places, shape.width)
        self.kinds = nn.Embedding(shape.kinds, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))

    @classmethod
    def of(cls, shape: BertShape, tensors: Mapping[str, Tensor]) -> Bert:
        """The network with upstream's weights. KeyError: one is missing. RuntimeError: one has another shape."""
        with torch.device("meta"):  # no weights are drawn, only to be thrown away
            network = cls(shape)
        network.load_state_dict(dict(_renamed(shape, tensors)), assign=True)
        return network.eval().requires_grad_(False)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """B × W."""
        batch, length = tokens_BL.shape
        embedded_BLW = self.words(tokens_BL) + self.places.weight[:length] + self.kinds.weight[0]
        rows_RW = self.norm(embedded_BLW).flatten(0, 1)
        for layer in self.layers:
            rows_RW = layer(rows_RW, batch)
        return functional.normalize(rows_RW.view(batch, length, -1).mean(dim=1), dim=1)


class _Layer(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self._heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.attention_out = nn.Linear(shape.width, shape.width)
        self.attention_norm = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.up = nn.Linear(shape.width, shape.inner)
        self.down = nn.Linear(shape.inner, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=shape.epsilon)

    def forward(self, rows_RW: Tensor, batch: int) -> Tensor:
        rows_RW = self.attention_norm(rows_RW + self.attention_out(self._attended(rows_RW, batch)))
        return cast(Tensor, self.norm(rows_RW + self.down(functional.gelu(self.up(rows_RW)))))

    def _attended(self, rows_RW: Tensor, batch: int) -> Tensor:
        rows, width = rows_RW.shape
        qkv = self.qkv(rows_RW).view(batch, rows // batch, 3, self._heads, width // self._heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return attended.transpose(1, 2).reshape(rows, width)


_EMBEDDINGS = {
    "words": "embeddings.word_embeddings",
    "places": "embeddings.position_embeddings",
    "kinds": "embeddings.token_type_embeddings",
}
_LAYER = {
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}


def _renamed(shape: BertShape, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Upstream's tensors under our names; query, key and value become one."""
    yield from ((f"{ours}.weight", tensors[f"{theirs}.weight"]) for ours, theirs in _EMBEDDINGS.items())
    for part in ("weight", "bias"):
        yield f"norm.{part}", tensors[f"embeddings.LayerNorm.{part}"]
        for at in range(shape.layers):
            theirs = f"encoder.layer.{at}"
            qkv = [tensors[f"{theirs}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            yield f"layers.{at}.qkv.{part}", torch.cat(qkv)
            yield from ((f"layers.{at}.{o}.{part}", tensors[f"{theirs}.{t}.{part}"]) for o, t in _LAYER.items())
