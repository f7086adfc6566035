"""Shards: which item is where, and how a deployment names them."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.index.settings import IndexSettings
from headrace.ranker.settings import RankerSettings
from headrace.runtime.settings import SettingsError, load
from headrace.runtime.shard_addresses import addresses_of
from headrace.runtime.shards import Shard, shard_of
from headrace.trainer.settings import TrainerSettings


def test_an_item_never_changes_its_shard() -> None:
    # MurmurHash3's finaliser of 0 to 3; shards are on disk: another hash would look for items where they are not
    mixed = [0x00000000, 0x514E28B7, 0x30F4C306, 0x85F0B427]
    for shards in (1, 4, 1_000):
        found = shard_of(np.arange(4, dtype=np.uint32), shards)
        assert found.tolist() == [hashed % shards for hashed in mixed]


@pytest.mark.parametrize("shards", [2, 3, 4, 7, 16])
def test_shards_are_even(shards: int) -> None:
    items = 200_000
    for ordinals in (np.arange(items), np.arange(items) * 64):
        held = np.bincount(shard_of(ordinals.astype(np.uint32), shards), minlength=shards)
        # six standard deviations of an even draw
        assert np.abs(held - items / shards).max() < 6 * (items / shards) ** 0.5


def test_every_item_is_of_one_shard() -> None:
    ordinals = np.arange(10_000, dtype=np.uint32)
    owned = np.sum([Shard(number, 3).owns(ordinals) for number in range(3)], axis=0)
    assert (owned == 1).all()


@pytest.mark.parametrize("text", ["", "1", "2/2", "0/0", "-1/2", "a/b", "1/2/3", "0/2 "])
def test_a_shard_that_cannot_be_is_refused_by_name_and_value(text: str) -> None:
    with pytest.raises(SettingsError, match="HEADRACE_INDEX_SHARD") as refused:
        load(IndexSettings, {"HEADRACE_INDEX_SHARD": text})
    assert repr(text) in str(refused.value)


def test_one_address_is_one_shard_with_one_replica() -> None:
    assert addresses_of("127.0.0.1:7404") == (("127.0.0.1:7404",),)


def test_commas_separate_replicas_and_semicolons_shards() -> None:
    assert addresses_of("a:1, b:2;c:3,d:4") == (("a:1", "b:2"), ("c:3", "d:4"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "address 0 of shard 0 must be host:port, got ''"),
        ("a:1,,b:2", "address 1 of shard 0 must be host:port, got ''"),
        ("a:1;", "address 0 of shard 1 must be host:port, got ''"),
        ("a:1;b", "address 0 of shard 1 must be host:port, got 'b'"),
        ("a:1;b:2,a:1", "a:1 is named twice"),
    ],
)
@pytest.mark.parametrize("kind", [TrainerSettings, RankerSettings])
def test_addresses_that_do_not_fit_are_refused_by_name_and_value(
    kind: type[TrainerSettings | RankerSettings], text: str, fault: str
) -> None:
    name = f"{kind.model_config['env_prefix']}INDEX_ADDRESS"
    with pytest.raises(SettingsError) as refused:
        load(kind, {name: text})
    assert f"{name}={text!r}" in str(refused.value)
    assert fault in str(refused.value)


def test_peers_may_be_none_and_are_checked_otherwise() -> None:
    assert load(IndexSettings, {}).peers == ""
    with pytest.raises(SettingsError, match=r"HEADRACE_INDEX_PEERS='a:1,b': .*must be host:port, got 'b'"):
        load(IndexSettings, {"HEADRACE_INDEX_PEERS": "a:1,b"})
