"""Words, typos, codes, and how soon a change is found."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from headrace.ranker.catalogue import Listing
from headrace.ranker.lexical import LexicalIndex, shared_ranks

LISTINGS = (
    Listing(0, "A-1", "Ceramic Coffee Mug", "Holds hot drinks", brands=("Acme",), categories=("Kitchen > Mugs",)),
    Listing(1, "A-2", "Glass Kettle", "Boils water for coffee", brands=("Zenith",), attributes=("matte black",)),
    Listing(2, "B-3", "Café chair", "For the garden", categories=("Garden > Chairs",)),
    Listing(3, "B-4", "The Who: live", "A record"),
    Listing(4, "B-5", "Set of 4 coffee mugs", "Stoneware"),
)
ALL = np.ones(8, np.bool_)


@pytest.fixture
async def lexical():
    index = LexicalIndex(commit_s=0.01)
    index.put(LISTINGS)
    await index.commit()
    yield index
    index.close()


def found(index: LexicalIndex, query: str, allowed=ALL, limit: int = 100) -> list[int]:
    return index.search(query, allowed, limit).ordinals.tolist()


async def test_a_title_weighs_more_than_a_description(lexical):
    assert found(lexical, "coffee")[-1] == 1
    assert set(found(lexical, "coffee")) == {0, 1, 4}


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("MUGS ceramic", 0),
        ("cafe", 2),
        ("kettel", 1),
        ("cerammic coffe mug", 0),
        ("zenith", 1),
        ("matte", 1),
        ("garden", 2),
        ("b-3", 2),
        ("chair for the garden", 2),
        ("the who", 3),
    ],
)
async def test_a_query_finds_what_was_meant(lexical, query, first):
    assert found(lexical, query)[0] == first


async def test_stop_words_do_not_keep_a_product_from_matching_all_words(lexical):
    assert found(lexical, "a kettle with the glass")[0] == 1


async def test_all_words_come_before_any_word(lexical):
    hits = lexical.search("glass coffee", ALL, 100)
    assert hits.ordinals[0] == 1
    assert set(hits.ordinals.tolist()) == {0, 1, 4}
    assert hits.ranks[1] - hits.ranks[0] > 20


@pytest.mark.parametrize("query", ["", "   ", "!!!", "xylophone", "x" * 1_000])
async def test_what_matches_nothing_finds_nothing(lexical, query):
    hits = lexical.search(query, ALL, 100)
    assert (hits.ordinals.tolist(), hits.total) == ([], 0)


async def test_numbers_must_be_right(lexical):
    lexical.put([Listing(5, "C", "lens 50000"), Listing(6, "D", "lens 50001")])
    await lexical.commit()
    assert found(lexical, "50000") == [5]


async def test_what_is_not_allowed_is_neither_found_nor_counted(lexical):
    allowed = np.array([False, True, True, True, True])
    hits = lexical.search("coffee", allowed, 1)
    assert (len(hits.ordinals), hits.total) == (1, 2)
    assert found(lexical, "coffee", allowed=np.zeros(0, np.bool_)) == []
    # ordinals beyond the mask are of products that came after it
    assert found(lexical, "coffee", allowed=np.ones(1, np.bool_)) == [0]


async def test_a_change_replaces_and_a_removal_removes(lexical):
    lexical.put([Listing(0, "A-1", "Teapot")])
    lexical.remove([1])
    await lexical.commit()
    assert lexical.documents == 4
    assert found(lexical, "teapot") == [0]
    assert found(lexical, "ceramic") == []
    assert found(lexical, "kettle") == []


async def test_of_two_changes_the_last_one_counts(lexical):
    lexical.put([Listing(7, "Z", "first")])
    lexical.put([Listing(7, "Z", "second")])
    lexical.remove([0])
    lexical.put([Listing(0, "A-1", "reborn")])
    await lexical.commit()
    assert found(lexical, "second") == [7]
    assert found(lexical, "first") == []
    assert found(lexical, "reborn") == [0]


async def test_changes_are_committed_without_being_asked(lexical):
    running = asyncio.create_task(lexical.run())
    lexical.put([Listing(7, "Z", "samovar")])
    async with asyncio.timeout(5):
        while True:
            if found(lexical, "samovar"):
                break
            await asyncio.sleep(0.005)
    running.cancel()


async def test_even_matches_share_a_rank_and_go_by_ordinal():
    index = LexicalIndex(commit_s=0.01)
    for ordinal in (2, 0, 1):
        index.put([Listing(ordinal, f"p{ordinal}", "blue lamp")])
        await index.commit()
    hits = index.search("lamp", ALL, 100)
    index.close()
    assert hits.ordinals.tolist() == [0, 1, 2]
    assert hits.ranks.tolist() == [0, 0, 0]


def test_shared_ranks_skip_the_places_that_are_shared():
    assert shared_ranks(np.array([3, 2, 2, 1], np.float32)).tolist() == [0, 1, 1, 3]
    assert shared_ranks(np.zeros(0, np.float32)).tolist() == []
