"""A pre-trained sentence Transformer of MiniLM's kind (Wang et al. 2020), from files on this machine.

Q texts, T width, L tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from headrace.model.text.bert import Bert, BertShape
from headrace.model.text.encoder import EncoderName
from headrace.model.text.errors import TextEncoderError
from headrace.model.text.int8 import in_int8
from headrace.model.text.weights import CONFIG, TOKENIZER, WEIGHTS, EncoderFiles

KIND = "minilm"
# as many tokens as upstream was trained with; a title has about 15
_MOST_TOKENS = 128
_BATCH = 32
# a text that has no others is empty
_FRAME_TOKENS = 2
_Tokenize = Callable[[str], list[int]]


class MiniLmEncoder:
    """A frozen Transformer, mean over tokens, in 8 bits. Short texts and long ones are never in one batch."""

    def __init__(self, name: EncoderName, width: int, tokenize: _Tokenize, network: nn.Module) -> None:
        self.name = name
        self.width = width
        self._tokenize = tokenize
        self._network = network

    @classmethod
    def of(cls, files: EncoderFiles, is_int8: bool = True) -> MiniLmEncoder:
        """The encoder of some files. TextEncoderError: they hold no BERT, or `tokenizers` is not installed."""
        shape = _shape(files)
        network: nn.Module = _network(files, shape)
        if is_int8:
            network = in_int8(network)
        return cls(EncoderName(KIND, files.digest), shape.width, _tokenizer(files), network)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Q × T."""
        tokens = [self._tokenize(text) for text in texts]
        vectors_QT = np.zeros((len(texts), self.width), np.float32)
        for rows in _batches(tokens):
            with torch.inference_mode():
                tokens_BL = torch.tensor([tokens[row] for row in rows])
                vectors_QT[rows] = self._network(tokens_BL).numpy()
        return vectors_QT


def _batches(tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Places of texts with equally many tokens; those without any are in none."""
    by_length = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    for length, same in groupby(by_length, key=lambda row: len(tokens[row])):
        rows = list(same) if length > _FRAME_TOKENS else []
        yield from (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))


def _shape(files: EncoderFiles) -> BertShape:
    try:
        return BertShape.of(json.loads(files.config))
    except (ValueError, KeyError, TypeError) as error:
        raise TextEncoderError(f"{files.folder / CONFIG}: {error!r}") from error


def _network(files: EncoderFiles, shape: BertShape) -> Bert:
    try:
        return Bert.of(shape, load_tensors(files.weights))
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise TextEncoderError(f"{files.folder / WEIGHTS}: {error}") from error


def _tokenizer(files: EncoderFiles) -> _Tokenize:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise TextEncoderError("a pre-trained text encoder needs the package tokenizers (the extra `text`)") from error
    try:
        tokenizer = Tokenizer.from_buffer(files.tokenizer)
    except ValueError as error:
        raise TextEncoderError(f"{files.folder / TOKENIZER}: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MOST_TOKENS)
    # one text at a time: `encode_batch` would start a thread for every core
    return lambda text: list(tokenizer.encode(text).ids)
