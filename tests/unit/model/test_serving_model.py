"""The served half of a release."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA
from headrace.model.history import History
from headrace.model.ranker_network import RankerNetwork, RankerShape
from headrace.model.serving_model import FORMAT, PARTS, TEXT_PART, ModelError, ServingModel, parts_of
from headrace.model.text.encoder import EncoderName, TextEncoder
from headrace.model.text.ngrams import HashedNgramEncoder
from headrace.model.towers import Towers, TowerShape

SHAPE = TowerShape(dimension=8, max_length=4, text_width=8)


@pytest.fixture(scope="module")
def parts() -> dict[str, bytes]:
    torch.manual_seed(1)
    return parts_of(
        space="main",
        feature_schema=FEATURE_SCHEMA,
        towers=Towers(SHAPE),
        ranker=RankerNetwork(RankerShape(len(CANDIDATE_FEATURES))),
        encoder=HashedNgramEncoder.fit(["red mug", "blue chair"], 8, 1),
    )


def _history(length: int) -> tuple[History, np.ndarray]:
    rng = np.random.default_rng(length)
    history = History(
        np.arange(length, dtype=np.uint32),
        np.ones(length, np.uint8),
        np.arange(length, dtype=np.int64) * 60_000_000,
        np.ones(length, np.uint8),
    )
    return history, rng.standard_normal((length, 8)).astype(np.float32)


def test_a_model_comes_back_from_its_parts(parts: dict[str, bytes]) -> None:
    model = ServingModel.load(parts)
    model.check_golden()
    assert set(parts) == {*PARTS, TEXT_PART}
    assert (model.dimension, model.space, model.feature_schema) == (8, "main", FEATURE_SCHEMA)


def test_only_the_newest_events_that_fit_count(parts: dict[str, bytes]) -> None:
    model = ServingModel.load(parts)
    history, vectors = _history(9)
    whole = model.user_vector(history, vectors, 10**12)
    np.testing.assert_array_equal(whole, model.user_vector(history.last(4), vectors[-4:], 10**12))


def test_an_event_whose_item_has_no_vector_is_left_out(parts: dict[str, bytes]) -> None:
    model = ServingModel.load(parts)
    history, vectors = _history(3)
    vectors[1] = 0
    kept = History(
        *(column[[0, 2]] for column in (history.ordinals, history.event_types, history.times_us, history.channels))
    )
    np.testing.assert_array_equal(
        model.user_vector(history, vectors, 10**12), model.user_vector(kept, vectors[[0, 2]], 10**12)
    )


def test_time_that_passes_changes_what_a_person_wants(parts: dict[str, bytes]) -> None:
    towers = load(parts["towers.safetensors"])
    towers["user.wait_shift.weight"] += torch.arange(32)[:, None]
    moved = parts | {"towers.safetensors": save(towers)}
    history, vectors = _history(3)
    model = ServingModel.load(moved)
    assert not np.array_equal(
        model.user_vector(history, vectors, 120_000_000), model.user_vector(history, vectors, 10**13)
    )


def test_someone_new_has_a_vector_too(parts: dict[str, bytes]) -> None:
    vector = ServingModel.load(parts).user_vector(History.empty(), np.empty((0, 8), np.float32), 5)
    assert vector.shape == (8,)
    assert np.isfinite(vector).all()


def test_queries_and_candidates_may_be_none(parts: dict[str, bytes]) -> None:
    model = ServingModel.load(parts)
    assert model.query_vectors([]).shape == (0, 8)
    assert model.query_vectors(["red", "mug"]).shape == (2, 8)
    assert model.scores(np.empty((0, len(CANDIDATE_FEATURES)), np.float32)).shape == (0,)


def test_task_probabilities_are_probabilities(parts: dict[str, bytes]) -> None:
    features = np.random.default_rng(1).standard_normal((5, len(CANDIDATE_FEATURES))).astype(np.float32)
    chances = ServingModel.load(parts).task_probabilities(features)
    assert chances.shape == (5, 3)
    assert ((chances > 0) & (chances < 1)).all()


def test_threads_get_the_same_answers(parts: dict[str, bytes]) -> None:
    model = ServingModel.load(parts)
    history, vectors = _history(4)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: model.user_vector(history, vectors, 10**12).tobytes(), range(40)))
    assert len(set(answers)) == 1


def test_a_missing_part_is_named(parts: dict[str, bytes]) -> None:
    with pytest.raises(ModelError, match=r"ranker\.safetensors"):
        ServingModel.load({name: data for name, data in parts.items() if name != "ranker.safetensors"})


def test_a_weight_that_is_not_finite_is_named(parts: dict[str, bytes]) -> None:
    towers = load(parts["towers.safetensors"])
    towers["user.beginning"][0] = float("nan")
    with pytest.raises(ModelError, match=r"user\.beginning"):
        ServingModel.load(parts | {"towers.safetensors": save(towers)})


def test_a_weight_of_another_shape_is_refused(parts: dict[str, bytes]) -> None:
    towers = load(parts["towers.safetensors"])
    towers["user.beginning"] = torch.zeros(9)
    with pytest.raises(ModelError, match=r"towers\.safetensors"):
        ServingModel.load(parts | {"towers.safetensors": save(towers)})


@pytest.mark.parametrize("number", [1, 99])
def test_another_format_is_refused(parts: dict[str, bytes], number: int) -> None:
    config = json.loads(parts["config.json"]) | {"format": number}
    with pytest.raises(ModelError, match=f"format {number}"):
        ServingModel.load(parts | {"config.json": json.dumps(config).encode()})


@pytest.mark.parametrize("name", [*PARTS, TEXT_PART])
def test_bytes_that_are_no_part_are_refused(parts: dict[str, bytes], name: str) -> None:
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        ServingModel.load(parts | {name: b"nonsense"})


def test_weights_that_answer_otherwise_fail_the_golden_examples(parts: dict[str, bytes]) -> None:
    towers = load(parts["towers.safetensors"])
    towers["user.beginning"] += 1
    model = ServingModel.load(parts | {"towers.safetensors": save(towers)})
    with pytest.raises(ModelError, match="golden"):
        model.check_golden()


def test_weights_that_are_not_finite_are_not_published() -> None:
    towers = Towers(SHAPE)
    with torch.no_grad():
        towers.user.beginning[0] = float("inf")
    with pytest.raises(ModelError, match="not finite"):
        parts_of(
            space="main",
            feature_schema=FEATURE_SCHEMA,
            towers=towers,
            ranker=RankerNetwork(RankerShape(len(CANDIDATE_FEATURES))),
            encoder=HashedNgramEncoder.fit([], 8, 1),
        )


def test_another_number_of_features_is_refused(parts: dict[str, bytes]) -> None:
    with pytest.raises(ModelError, match="takes"):
        ServingModel.load(parts).scores(np.zeros((1, 2), np.float32))


def test_a_release_without_its_fitted_encoder_is_refused(parts: dict[str, bytes]) -> None:
    with pytest.raises(ModelError, match=r"missing parts: text\.safetensors"):
        ServingModel.load({name: data for name, data in parts.items() if name != TEXT_PART})


def _named_parts(encoder: TextEncoder) -> dict[str, bytes]:
    torch.manual_seed(1)
    return parts_of(
        space="main",
        feature_schema=FEATURE_SCHEMA,
        towers=Towers(replace(SHAPE, text_width=encoder.width)),
        ranker=RankerNetwork(RankerShape(len(CANDIDATE_FEATURES))),
        encoder=encoder,
    )


def test_a_pre_trained_encoder_is_only_named_in_the_parts(lengths: TextEncoder) -> None:
    parts = _named_parts(lengths)
    config = json.loads(parts["config.json"])
    assert set(parts) == set(PARTS)
    assert (config["format"], config["text"]) == (FORMAT, {"kind": "lengths", "digest": "0" * 64})


def test_a_named_encoder_is_asked_for_by_its_name(lengths: TextEncoder) -> None:
    asked: list[EncoderName] = []

    def find(name: EncoderName) -> TextEncoder:
        asked.append(name)
        return lengths

    model = ServingModel.load(_named_parts(lengths), find)
    model.check_golden()
    assert asked == [lengths.name]
    assert model.query_vectors(["mug"]).any()


def test_a_release_whose_encoder_is_not_here_is_refused(lengths: TextEncoder) -> None:
    with pytest.raises(ModelError, match=f"lengths {'0' * 64} is needed"):
        ServingModel.load(_named_parts(lengths))


def test_an_encoder_of_another_width_is_refused(lengths: TextEncoder) -> None:
    with pytest.raises(ModelError, match="gives 16 numbers, the towers take 2"):
        ServingModel.load(_named_parts(lengths), lambda _: HashedNgramEncoder.fit([], 16, 1))


def test_a_named_encoder_that_reads_otherwise_fails_the_golden_examples(lengths: TextEncoder) -> None:
    parts = _named_parts(lengths)
    lengths.encode = lambda texts: np.tile(np.float32([0, -1]), (len(texts), 1))
    with pytest.raises(ModelError, match="golden query_vectors"):
        ServingModel.load(parts, lambda _: lengths).check_golden()


def test_the_packaged_encoder_serves_a_release(minilm: TextEncoder) -> None:
    model = ServingModel.load(_named_parts(minilm), lambda _: minilm)
    model.check_golden()
    assert model.query_vectors(["red mug"]).shape == (1, 8)
