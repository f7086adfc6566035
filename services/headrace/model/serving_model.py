"""The served half of a release: from its parts to vectors and scores, with no pickle and no torch outside.

L history length, D width, Q queries, C candidates, F features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA
from headrace.model.events import EventCode
from headrace.model.history import History
from headrace.model.ranker_network import RankerNetwork, RankerShape
from headrace.model.text import ngrams
from headrace.model.text.encoder import EncoderName, FindEncoder, TextEncoder, no_encoder
from headrace.model.text.errors import TextEncoderError
from headrace.model.text.ngrams import HashedNgramEncoder
from headrace.model.towers import CHANNELS, EVENT_CODES, Towers, TowerShape, event_gaps, gap_buckets
from headrace.model.user_encoder import UserEncoder

# what every release has; one with a fitted text encoder has that too
PARTS = ("towers.safetensors", "ranker.safetensors", "golden.safetensors", "config.json")
TEXT_PART = "text.safetensors"
# 2: `config.json` names the text encoder; vectors are of length 1 times a temperature
FORMAT = 2
_TOLERANCE = 1e-4
# a pre-trained encoder rounds to 8 bits: the last bit of a float, on which kinds of CPUs do not agree, can move a
# text's vector by a tenth of its length; one token read otherwise moves it by .4 or more
_PRETRAINED_TOLERANCE = 0.25
_GOLDEN_SEED = 7
_GOLDEN_QUERIES = ("red mug", "garden chair set of 4", "zzz")
_Arrays = dict[str, NDArray[np.generic]]


class ModelError(ValueError):
    """The parts are no model that can be served; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class _Config:
    format: int
    space: str
    feature_schema: str
    towers: TowerShape
    ranker: RankerShape
    text: EncoderName


class ServingModel:
    """Everything that a ranker needs of a release. Safe to call from several threads at once."""

    def __init__(
        self, space: str, feature_schema: str, towers: Towers, ranker: RankerNetwork, encoder: TextEncoder
    ) -> None:
        self.space = space
        self.feature_schema = feature_schema
        self.dimension = towers.shape.dimension
        self.max_length = towers.shape.max_length
        self._towers = towers.eval()
        self._user_encoder = UserEncoder(towers.user)
        self._ranker = ranker.eval()
        self._encoder = encoder
        self._golden: _Arrays = {}

    @classmethod
    def load(
        cls, parts: Mapping[str, bytes], find_encoder: FindEncoder = no_encoder, fitted: TextEncoder | None = None
    ) -> ServingModel:
        """A model from the bytes of its parts; a text encoder that is not in them is found by `find_encoder`.

        `fitted`: what the text part holds, by whoever has read one with the same checksum; the part may be missing.

        ModelError: a part is missing, misshapen or not finite, or there is no such encoder.
        """
        missing = [name for name in PARTS if name not in parts]
        if missing:
            raise ModelError(f"missing parts: {', '.join(missing)}")
        config = _config(parts["config.json"])
        # on no device: what begins at random would take numbers from whoever learns in this process
        with torch.device("meta"):
            towers, ranker = Towers(config.towers), RankerNetwork(config.ranker)
        _fill(towers, "towers.safetensors", parts)
        _fill(ranker, "ranker.safetensors", parts)
        encoder = _encoder(config, parts, find_encoder, fitted)
        model = cls(config.space, config.feature_schema, towers, ranker, encoder)
        model._golden = _arrays("golden.safetensors", parts)
        return model

    @property
    def encoder(self) -> TextEncoder:
        """What reads words for it."""
        return self._encoder

    def user_vector(self, history: History, item_vectors_LD: NDArray[np.float32], now_us: int) -> NDArray[np.float32]:
        """D: what the person wants now. Events whose item has no vector (a row of zeros) are left out."""
        known = np.flatnonzero(item_vectors_LD.any(axis=1))[-self.max_length :]
        times_us = history.times_us[known]
        wait = gap_buckets(np.array([now_us - times_us[-1]])) if len(known) else np.zeros(1, np.int64)
        return self._user_encoder.wants(
            item_vectors_LD[known],
            _codes(history.event_types[known], EVENT_CODES),
            _codes(history.channels[known], CHANNELS),
            event_gaps(times_us),
            int(wait[0]),
        )

    def query_vectors(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Q × D: where in item space the words point."""
        if not queries:
            return np.empty((0, self.dimension), np.float32)
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self._towers.query(torch.from_numpy(self._encoder.encode(queries))).numpy()
        return vectors

    def scores(self, features_CF: NDArray[np.float32]) -> NDArray[np.float32]:
        """C: one score a candidate; higher ranks first. ModelError: another number of features."""
        return np.ascontiguousarray(self._logits(features_CF)[:, 0])

    def scores_and_clicks(self, features_CF: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `scores`, and C: how likely the person clicks, which costs nothing more."""
        logits_CH = self._logits(features_CF)
        return np.ascontiguousarray(logits_CH[:, 0]), _probabilities(logits_CH[:, 1])

    def task_probabilities(self, features_CF: NDArray[np.float32]) -> NDArray[np.float32]:
        """C × 3: how likely the person clicks, adds to the cart, buys."""
        return _probabilities(self._logits(features_CF)[:, 1:])

    def _logits(self, features_CF: NDArray[np.float32]) -> NDArray[np.float32]:
        if features_CF.shape[1] != self._ranker.shape.features:
            raise ModelError(f"the ranker takes {self._ranker.shape.features} features, got {features_CF.shape[1]}")
        with torch.inference_mode():
            logits: NDArray[np.float32] = self._ranker(torch.from_numpy(features_CF)).numpy()
        return logits

    def check_golden(self) -> None:
        """Runs the release's own examples; ModelError unless every answer is the trainer's.

        They are to be within 1e-4, or within a quarter of their length for words read by a pre-trained encoder.
        """
        for _ in self.golden_checks():
            pass

    def golden_checks(self) -> Iterator[None]:
        """`check_golden` in pieces of less than a millisecond, for a process that has other things to do meanwhile."""
        for name, actual in _answers(self, self._golden):
            is_rounded = name == "query_vectors" and self._encoder.name.kind != ngrams.KIND
            is_same = _are_near if is_rounded else _are_equal
            expected = self._golden[name].astype(np.float32)
            if expected.shape != actual.shape or not is_same(expected, actual):
                raise ModelError(f"golden {name} differs from the one that was published")
            yield


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)


def _are_equal(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> bool:
    return bool(np.allclose(expected, actual, rtol=_TOLERANCE, atol=_TOLERANCE))


def _are_near(expected_QD: NDArray[np.float32], actual_QD: NDArray[np.float32]) -> bool:
    moved_Q = np.linalg.norm(expected_QD - actual_QD, axis=1)
    return bool((moved_Q <= _PRETRAINED_TOLERANCE * np.linalg.norm(expected_QD, axis=1) + _TOLERANCE).all())


def _codes(codes: NDArray[np.uint8], limit: int) -> NDArray[np.uint8]:
    # a channel that this release has no row for counts as its last one, as it did in training
    return np.minimum(codes, np.uint8(limit - 1))


def parts_of(
    *, space: str, feature_schema: str, towers: Towers, ranker: RankerNetwork, encoder: TextEncoder
) -> dict[str, bytes]:
    """The parts of a release with golden examples in them; a pre-trained encoder is only named.

    ModelError: a weight is not finite.
    """
    for name, module in (("towers", towers), ("ranker", ranker)):
        _check_finite(name, {key: value.numpy() for key, value in module.state_dict().items()})
    config = {
        "format": FORMAT,
        "space": space,
        "feature_schema": feature_schema,
        "towers": asdict(towers.shape),
        "ranker": asdict(ranker.shape),
        "text": asdict(encoder.name),
    }
    training = towers.training
    golden = _golden(ServingModel(space, feature_schema, towers, ranker, encoder))
    towers.train(training)
    ranker.train(training)
    parts = {
        "towers.safetensors": save_tensors(dict(towers.state_dict())),
        "ranker.safetensors": save_tensors(dict(ranker.state_dict())),
        "golden.safetensors": save_arrays(golden),
        "config.json": json.dumps(config, sort_keys=True).encode(),
    }
    return parts | _text_part(encoder)


def _text_part(encoder: TextEncoder) -> dict[str, bytes]:
    if not isinstance(encoder, HashedNgramEncoder):
        return {}
    return {TEXT_PART: save_arrays({"weights_V": encoder.weights_V, "projection_VT": encoder.projection_VT})}


def _golden(model: ServingModel) -> _Arrays:
    rng = np.random.default_rng(_GOLDEN_SEED)
    length = min(6, model.max_length)
    inputs: _Arrays = {
        "ordinals": np.arange(length, dtype=np.uint32),
        "event_types": rng.integers(1, len(EventCode), length).astype(np.uint8),
        "times_us": np.cumsum(rng.integers(0, 10**11, length)).astype(np.int64),
        "channels": rng.integers(0, 4, length).astype(np.uint8),
        "item_vectors_LD": rng.standard_normal((length, model.dimension)).astype(np.float32),
        "queries": np.frombuffer(json.dumps(_GOLDEN_QUERIES).encode(), np.uint8),
        "features_CF": rng.standard_normal((8, model._ranker.shape.features)).astype(np.float32),
    }
    return inputs | dict(_answers(model, inputs))


def _answers(model: ServingModel, golden: _Arrays) -> Iterator[tuple[str, NDArray[np.float32]]]:
    try:
        history = History(
            golden["ordinals"].astype(np.uint32),
            golden["event_types"].astype(np.uint8),
            golden["times_us"].astype(np.int64),
            golden["channels"].astype(np.uint8),
        )
        vectors_LD, features_CF = golden["item_vectors_LD"].astype(np.float32), golden["features_CF"].astype(np.float32)
        queries = json.loads(golden["queries"].tobytes())
    except KeyError as error:
        raise ModelError(f"golden.safetensors lacks {error}") from error
    now_us = int(history.times_us[-1]) + 3_600_000_000
    yield "user_vector", model.user_vector(history, vectors_LD, now_us)
    yield "new_user_vector", model.user_vector(History.empty(), vectors_LD[:0], now_us)
    yield "query_vectors", model.query_vectors(queries)
    yield "scores", model.scores(features_CF)


def _config(data: bytes) -> _Config:
    try:
        found = json.loads(data)
        if int(found["format"]) != FORMAT:
            raise ModelError(f"config.json: format {found['format']}, this code reads {FORMAT}")
        config = _Config(
            int(found["format"]),
            str(found["space"]),
            str(found["feature_schema"]),
            TowerShape(**found["towers"]),
            RankerShape(**found["ranker"]),
            EncoderName(**found["text"]),
        )
    except ModelError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"config.json: {error!r}") from error
    if config.feature_schema == FEATURE_SCHEMA and config.ranker.features != len(CANDIDATE_FEATURES):
        raise ModelError(f"config.json: {config.ranker.features} features, the schema has {len(CANDIDATE_FEATURES)}")
    return config


def _fill(module: nn.Module, name: str, parts: Mapping[str, bytes]) -> None:
    try:
        tensors = load_tensors(parts[name])
        module.load_state_dict(tensors, strict=True, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{name}: {error}") from error
    _check_finite(name, {key: value.numpy() for key, value in tensors.items()})


def _encoder(
    config: _Config, parts: Mapping[str, bytes], find_encoder: FindEncoder, fitted: TextEncoder | None
) -> TextEncoder:
    try:
        encoder = fitted or _fitted_encoder(parts) if config.text.kind == ngrams.KIND else find_encoder(config.text)
    except TextEncoderError as error:
        raise ModelError(str(error)) from error
    if encoder.width != config.towers.text_width:
        raise ModelError(
            f"text encoder {encoder.name} gives {encoder.width} numbers, the towers take {config.towers.text_width}"
        )
    return encoder


def _fitted_encoder(parts: Mapping[str, bytes]) -> HashedNgramEncoder:
    if TEXT_PART not in parts:
        raise ModelError(f"missing parts: {TEXT_PART}")
    arrays = _arrays(TEXT_PART, parts)
    try:
        return HashedNgramEncoder(arrays["weights_V"].astype(np.float32), arrays["projection_VT"].astype(np.float32))
    except KeyError as error:
        raise ModelError(f"{TEXT_PART} lacks {error}") from error


def _arrays(name: str, parts: Mapping[str, bytes]) -> _Arrays:
    try:
        arrays: _Arrays = load_arrays(parts[name])
    except SafetensorError as error:
        raise ModelError(f"{name}: {error}") from error
    _check_finite(name, arrays)
    return arrays


def _check_finite(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    for key, values in arrays.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values.astype(np.float32)).all():
            raise ModelError(f"{name}: {key} holds a number that is not finite")
