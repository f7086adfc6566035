"""Releases are taken whole, checked first, and refused without harm."""

from __future__ import annotations

import asyncio

import numpy as np
from safetensors.torch import load, save

from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.model.ranker_network import RankerNetwork, RankerShape
from headrace.model.towers import Towers, TowerShape


async def refused(world, name: str) -> str:
    await world.until(lambda status: status.refused_release == name)
    status = await world.status()
    assert status.release == "r-1"
    assert (await world.recommend()).info.release == "r-1"
    return status.refused_reason


async def test_a_newer_release_is_swapped_in_while_answers_go_on(full_shop, make):
    answered: set[str] = set()
    manifest = full_shop.registry.release("r-2", make.model_parts(seed=1), delta_sequence=60)
    await full_shop.registry.serve(manifest)
    async with asyncio.timeout(15):
        while "r-2" not in answered:
            response = await full_shop.recommend()
            assert response.info.release in ("r-1", "r-2")
            assert len(response.results) == 20
            answered.add(response.info.release)
    assert (await full_shop.status()).refused_release == ""


async def test_a_roll_back_is_a_later_plan_with_an_older_release(full_shop, make):
    await full_shop.serve_release("r-2", seed=1, delta_sequence=60)
    await full_shop.serve_release("r-1", delta_sequence=60)
    assert (await full_shop.recommend()).info.release == "r-1"


async def test_a_plan_with_an_older_number_is_ignored(full_shop, make):
    await full_shop.serve_release("r-2", seed=1, delta_sequence=60)
    old = full_shop.registry.release("r-0", make.model_parts(seed=3), delta_sequence=60)
    await full_shop.registry.serve(old, sequence=2)
    new = full_shop.registry.release("r-3", make.model_parts(seed=2), delta_sequence=60)
    answered: set[str] = set()
    await full_shop.registry.serve(new, sequence=9)
    async with asyncio.timeout(15):
        while "r-3" not in answered:
            answered.add((await full_shop.recommend()).info.release)
    assert answered <= {"r-2", "r-3"}


async def test_weights_that_are_not_finite_are_refused(full_shop, make):
    parts = make.model_parts(seed=1)
    weights = load(parts["ranker.safetensors"])
    weights["heads.weight"][0, 0] = float("nan")
    manifest = full_shop.registry.release("bad", parts | {"ranker.safetensors": save(weights)}, delta_sequence=60)
    await full_shop.registry.serve(manifest)
    assert "not finite" in await refused(full_shop, "bad")


async def test_weights_that_answer_otherwise_than_the_trainers_are_refused(full_shop, make):
    parts = make.model_parts(seed=1)
    weights = load(parts["ranker.safetensors"])
    weights["heads.bias"] += 0.5
    manifest = full_shop.registry.release("bad", parts | {"ranker.safetensors": save(weights)}, delta_sequence=60)
    await full_shop.registry.serve(manifest)
    assert "golden scores" in await refused(full_shop, "bad")


async def test_another_feature_schema_is_refused(full_shop, make):
    manifest = full_shop.registry.release("bad", make.model_parts(seed=1), delta_sequence=60)
    manifest.feature_schema = "of tomorrow"
    await full_shop.registry.serve(manifest)
    assert "feature schema" in await refused(full_shop, "bad")


async def test_parts_of_another_schema_than_their_manifest_are_refused(full_shop, make):
    network = RankerNetwork(RankerShape(len(CANDIDATE_FEATURES) + 1, hidden=16))
    parts = make.model_parts(seed=1, feature_schema="of tomorrow", ranker=network)
    await full_shop.registry.serve(full_shop.registry.release("bad", parts, delta_sequence=60))
    assert "of tomorrow" in await refused(full_shop, "bad")


async def test_a_part_with_another_checksum_is_refused(full_shop, make):
    manifest = full_shop.registry.release("bad", make.model_parts(seed=1), delta_sequence=60)
    full_shop.registry.parts["bad", "text.safetensors"] += b"x"
    await full_shop.registry.serve(manifest)
    assert "SHA-256" in await refused(full_shop, "bad")


async def test_a_part_that_is_not_there_is_refused(full_shop, make):
    manifest = full_shop.registry.release("bad", make.model_parts(seed=1), delta_sequence=60)
    del full_shop.registry.parts["bad", "text.safetensors"]
    await full_shop.registry.serve(manifest)
    assert "no such part" in await refused(full_shop, "bad")


async def test_a_fetch_that_breaks_off_is_tried_again(full_shop, make):
    full_shop.registry.broken_fetches = 3
    await full_shop.serve_release("r-2", seed=1, delta_sequence=60)
    assert full_shop.registry.broken_fetches == 0
    assert (await full_shop.status()).refused_release == ""


async def test_vectors_of_another_width_than_the_towers_are_refused(full_shop, make):
    towers = Towers(TowerShape(dimension=8, max_length=8, text_width=16, brand_buckets=8, category_buckets=8))
    manifest = full_shop.registry.release("bad", make.model_parts(seed=1, towers=towers), delta_sequence=60)
    manifest.dimension = 8
    await full_shop.registry.serve(manifest)
    assert "dimension is 8" in await refused(full_shop, "bad")


async def test_a_manifest_without_a_part_is_refused(full_shop, make):
    parts = make.model_parts(seed=1)
    del parts["golden.safetensors"]
    await full_shop.registry.serve(full_shop.registry.release("bad", parts, delta_sequence=60))
    assert "golden.safetensors" in await refused(full_shop, "bad")


def _towers(text_width: int, make) -> Towers:
    shape = TowerShape(make.dimension, max_length=8, text_width=text_width, brand_buckets=8, category_buckets=8)
    return Towers(shape)


async def test_a_release_that_needs_a_text_encoder_that_is_not_here_is_refused(full_shop, make, lengths):
    parts = make.model_parts(seed=1, towers=_towers(lengths.width, make), encoder=lengths)
    await full_shop.registry.serve(full_shop.registry.release("bad", parts, delta_sequence=60))
    assert f"lengths {'0' * 64} is needed" in await refused(full_shop, "bad")


async def test_a_release_that_needs_the_packaged_text_encoder_is_served_by_it(full_shop, make, minilm):
    parts = make.model_parts(seed=1, towers=_towers(minilm.width, make), encoder=minilm)
    await full_shop.registry.serve(full_shop.registry.release("r-2", parts, delta_sequence=60))
    await full_shop.until(lambda status: status.release == "r-2")
    assert (await full_shop.search("red mug")).results


async def test_after_a_refusal_a_good_release_is_taken(full_shop, make):
    manifest = full_shop.registry.release("bad", make.model_parts(seed=1), delta_sequence=60)
    manifest.feature_schema = "of tomorrow"
    await full_shop.registry.serve(manifest)
    await refused(full_shop, "bad")
    await full_shop.serve_release("r-2", seed=2, delta_sequence=60)
    assert (await full_shop.status()).refused_release == "bad"


async def test_a_release_waits_for_the_vectors_that_it_belongs_to(full_shop, make):
    manifest = full_shop.registry.release("r-2", make.model_parts(seed=1), delta_sequence=61)
    await full_shop.registry.serve(manifest)
    assert "sequence 60, needs 61" in await refused(full_shop, "r-2")
    await full_shop.push("main", 61, [0], np.ones((1, make.dimension)))
    await full_shop.until(lambda status: status.release == "r-2")
    assert (await full_shop.status()).refused_release == ""


async def test_a_release_of_a_new_space_is_served_with_that_spaces_vectors(full_shop, make):
    parts = make.model_parts(seed=1, space="next")
    manifest = full_shop.registry.release("r-2", parts, delta_sequence=1)
    manifest.space = "next"
    await full_shop.registry.serve(manifest)
    assert "'next'" in await refused(full_shop, "r-2")
    await full_shop.push("next", 1, [5], np.ones((1, make.dimension)))
    await full_shop.until(lambda status: status.release == "r-2")
    status = await full_shop.status()
    assert (status.space, status.vectors, status.delta_sequence, status.vectors_log_offset) == ("next", 1, 1, 7)
    assert (await full_shop.recommend()).info.space == "next"


async def test_a_release_over_an_empty_space_answers_without_vectors(shop, make):
    await shop.push("main", 1, [], np.zeros((0, make.dimension)))
    await shop.store.act("v:ann", 3, 1)
    await shop.serve_release()
    # beside a mug there are the nine others, by category
    for config, products, count in (("home", [], 20), ("similar-items", ["p-0"], 9)):
        response = await shop.recommend(config, product_ids=products)
        assert len(response.results) == count
        assert response.info.release == "r-1"


async def test_parts_of_another_space_than_the_manifest_are_refused(full_shop, make):
    manifest = full_shop.registry.release("bad", make.model_parts(seed=1, space="next"), delta_sequence=60)
    await full_shop.registry.serve(manifest)
    assert "space is 'next'" in await refused(full_shop, "bad")


async def test_vectors_that_move_and_go_are_followed(full_shop, make):
    await full_shop.push("main", 61, [59], np.eye(1, make.dimension))
    await full_shop.until(lambda status: status.delta_sequence == 61)
    assert (await full_shop.status()).vectors == 60
