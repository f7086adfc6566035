"""What the learner folds from the log: records, catalogue, popularity, searches, quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.model.text.cache import CachedEncoder
from headrace.model.text.encoder import TextEncoder
from headrace.model.towers import TowerShape
from headrace.runtime.errors import FailedPreconditionError
from headrace.runtime.eventlog import LoggedRecord
from headrace.trainer.catalogue import Catalogue, category_buckets, price_bucket
from headrace.trainer.catalogue_text import pretrained_encoder
from headrace.trainer.deltas import Deltas, Sent
from headrace.trainer.popularity import Popularity
from headrace.trainer.prequential import Prequential, Trial, trials_of
from headrace.trainer.queries import SearchPairs, pseudo_queries
from headrace.trainer.records import Product, Searched, slice_of
from headrace.trainer.sequences import Grown
from headrace.trainer.settings import TrainerSettings
from headrace.v1 import common_pb2, log_pb2

_DAY = 86_400_000_000


def _record(offset: int, kind: str, message: object, traceparent: str = "") -> LoggedRecord:
    payload = message.SerializeToString()
    return LoggedRecord(offset, 0, offset * 100, kind, "k", f"e{offset}", 0, payload, traceparent)


def _event(kind: str, ordinals: list[int], **fields: object) -> log_pb2.LoggedUserEvent:
    event = common_pb2.UserEvent(event_type=kind, channel=common_pb2.CHANNEL_APP, **fields)
    return log_pb2.LoggedUserEvent(event=event, user_key="u:1", item_ordinals=ordinals, event_time_us=9)


def test_a_basket_is_an_event_an_item() -> None:
    records = [_record(1, "user-event", _event("purchase-complete", [4, 5], attribution_token="t"), "trace")]
    events = slice_of(records, 0, 1).events
    assert (events.ordinals.tolist(), events.event_types.tolist(), events.channels.tolist()) == ([4, 5], [4, 4], [3, 3])
    assert (events.user_keys, events.tokens, events.times_us.tolist()) == (("u:1",), ("t", "t"), [9, 9])
    assert slice_of(records, 0, 1).traceparent == "trace"


def test_searches_products_and_lists_are_told_apart() -> None:
    change = log_pb2.ProductChange(
        ordinal=3, product=common_pb2.Product(id="p", title="Red mug", brands=["Acme"], categories=["Kitchen > Mugs"])
    )
    shown = log_pb2.Impression(
        attribution_token="t",
        item_ordinals=np.array([1, 2], "<u4").tobytes(),
        features=common_pb2.Matrix(rows=2, columns=1, values=np.array([7, 8], "<f4").tobytes()),
    )
    records = slice_of(
        [
            _record(1, "user-event", _event("search", [], search_query="mug")),
            _record(2, "product-change", change),
            _record(3, "impression", shown),
            _record(4, "user-event", _event("home-page-view", [])),
        ],
        0,
        4,
    )
    assert records.searches == (Searched("u:1", "mug", 9),)
    assert records.products == (Product(2, 3, "Red mug Acme Kitchen > Mugs", "Acme", "Kitchen > Mugs", 0.0, False),)
    assert records.impressions[0].features.tolist() == [[7], [8]]
    assert len(records.events) == 0


def _product(ordinal: int, text: str, price: float = 1.0) -> Product:
    return Product(ordinal, ordinal, text, "", "", price, False)


def test_a_text_encoder_is_fitted_anew_while_the_catalogue_is_small() -> None:
    catalogue = Catalogue(TowerShape(text_width=8), 1)
    assert len(catalogue.fold([_product(0, "red mug")])) == 1
    changed = catalogue.fold([_product(at, f"garden chair {at}") for at in range(1, 6)])
    assert changed.tolist() == [0, 1, 2, 3, 4, 5]
    assert catalogue.fold([_product(6, "bird house")]).tolist() == [6]


def test_a_change_of_price_alone_keeps_the_text_vector() -> None:
    catalogue = Catalogue(TowerShape(text_width=8), 1)
    catalogue.fold([_product(0, "red mug")])
    before = catalogue.text_vectors(np.array([0])).copy()
    assert catalogue.fold([_product(0, "red mug", 64.0)]).tolist() == [0]
    np.testing.assert_array_equal(catalogue.text_vectors(np.array([0])), before)


def test_a_restored_catalogue_is_the_same() -> None:
    catalogue, copy = Catalogue(TowerShape(text_width=8), 1), Catalogue(TowerShape(text_width=8), 1)
    catalogue.fold([_product(0, "red mug"), _product(3, "bird house")])
    copy.restore(catalogue.arrays())
    assert (copy.count, copy.text_of(3), copy.text_of(1)) == (4, "bird house", "")
    assert copy.described().tolist() == [0, 3]
    np.testing.assert_array_equal(copy.encoder.encode(["mug"]), catalogue.encoder.encode(["mug"]))


def test_a_frozen_encoder_is_never_fitted_and_reads_each_new_text_once(lengths: TextEncoder) -> None:
    catalogue = Catalogue(TowerShape(text_width=lengths.width), 1, CachedEncoder(lengths))
    assert catalogue.fold([_product(0, "red mug")]).tolist() == [0]
    changed = catalogue.fold([_product(0, "red mug", 2.0), _product(1, "bird house"), _product(2, "red mug")])
    assert changed.tolist() == [0, 1, 2]
    assert lengths.encoded == ["red mug", "bird house"]
    vectors = catalogue.text_vectors(np.array([0, 1, 2]))
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_a_catalogue_over_a_frozen_encoder_is_restored_without_reading_again(lengths: TextEncoder) -> None:
    catalogue, copy = (Catalogue(TowerShape(text_width=lengths.width), 1, lengths) for _ in range(2))
    catalogue.fold([_product(0, "red mug"), _product(3, "bird house")])
    copy.restore(catalogue.arrays())
    assert lengths.encoded == ["red mug", "bird house"]
    everything = np.arange(4)
    np.testing.assert_array_equal(copy.text_vectors(everything), catalogue.text_vectors(everything))


def test_a_catalogue_reads_by_the_packaged_encoder(minilm: TextEncoder) -> None:
    catalogue = Catalogue(TowerShape(text_width=minilm.width), 1, minilm)
    catalogue.fold([_product(0, "sofa"), _product(1, "couch"), _product(2, "lamp")])
    sofa, couch, lamp = catalogue.text_vectors(np.arange(3))
    assert sofa @ couch > sofa @ lamp + 0.2


def test_the_settings_choose_the_encoder(tmp_path: Path) -> None:
    assert pretrained_encoder(TrainerSettings()) is None
    with pytest.raises(FailedPreconditionError, match=r"lacks config\.json"):
        pretrained_encoder(TrainerSettings(text_encoder="minilm", text_folder=tmp_path))


def test_the_packaged_encoder_can_be_chosen(minilm: TextEncoder) -> None:
    encoder = pretrained_encoder(TrainerSettings(text_encoder="minilm"))
    assert encoder is not None
    assert encoder.name == minilm.name


def test_categories_share_the_buckets_of_their_parents() -> None:
    boots, sandals = category_buckets("Shoes > Boots", 1000), category_buckets("Shoes > Sandals", 1000)
    assert boots[0] == sandals[0] != 0
    assert boots[1] != sandals[1]
    assert boots[2] == 0
    assert not category_buckets("", 1000).any()


@pytest.mark.parametrize(("price", "bucket"), [(-1.0, 0), (0.001, 1), (1e9, 63)])
def test_absurd_prices_have_a_bucket(price: float, bucket: int) -> None:
    assert price_bucket(price, 64) == bucket


def test_popularity_halves_in_a_week() -> None:
    popularity = Popularity()
    popularity.grow(2)
    popularity.add(np.array([0, 0], np.uint32), np.array([0, 0]))
    popularity.add(np.array([1], np.uint32), np.array([7 * _DAY]))
    np.testing.assert_allclose(popularity.counts(2), [1, 1])


def test_a_search_is_paired_with_what_the_same_person_did_next() -> None:
    pairs = SearchPairs()
    events = slice_of([_record(1, "user-event", _event("detail-page-view", [4]))], 0, 1).events
    assert pairs.fold([Searched("u:2", "chair", 9), Searched("u:1", "mug", 9)], events) == 1
    lesson = pairs.sample(5, np.random.default_rng(1))
    assert (lesson.texts, lesson.ordinals.tolist()) == (("mug",), [4])


def test_a_search_of_long_ago_is_not_paired() -> None:
    events = slice_of([_record(1, "user-event", _event("detail-page-view", [4]))], 0, 1).events
    assert SearchPairs().fold([Searched("u:1", "mug", 9 - 11 * 60_000_000)], events) == 0


def test_pseudo_queries_are_words_of_the_text() -> None:
    [query, empty] = pseudo_queries(["red ceramic mug", ""], np.random.default_rng(1))
    assert set(query.split()) <= {"red", "ceramic", "mug"}
    assert query
    assert empty == ""


def _grown(ordinals: list[int], old: int, times_us: list[int]) -> Grown:
    codes = np.ones(len(ordinals), np.uint8)
    return Grown(old, np.array(ordinals, np.uint32), codes, np.array(times_us), codes)


def test_a_trial_is_what_a_person_does_first() -> None:
    [trial] = trials_of([_grown([1, 2, 3, 2], 1, [0, 5, 9, 5])], 10, np.random.default_rng(1))
    assert (trial.time_us, trial.targets.tolist()) == (5, [2])


def test_quality_counts_hits_beside_the_floors() -> None:
    prequential = Prequential()
    trial = Trial(_grown([25, 30], 1, [0, 5]), 4 * _DAY, np.array([30, 25], np.uint32))
    scores = np.zeros((1, 40), np.float32)
    scores[0, 30] = 1
    popularity = np.arange(40, dtype=np.float64)[::-1].copy()
    prequential.score([trial], scores, popularity)
    [week] = prequential.by_week()
    # learner: 30 first, 25 in the 26th place; popularity: neither; own frequency: 25 first
    assert (week.period, week.targets) == ("1970-W02", 2)
    assert (week.recall, week.reciprocal_rank) == (0.5, 0.5)
    assert (week.popularity_recall, week.personal_recall) == (0.0, 0.5)
    copy = Prequential()
    copy.restore(prequential.arrays())
    assert copy.overall().targets == 2


def test_a_difference_turns_one_state_into_the_other() -> None:
    mine, theirs = Sent(1), Sent(1)
    none = np.zeros(2, np.uint8)
    mine.note(Deltas(np.array([1, 2], np.uint32), np.array([[1], [2]], np.float32), none))
    theirs.note(Deltas(np.array([2, 70], np.uint32), np.array([[5], [7]], np.float32), none))
    difference = mine.difference(theirs.all())
    assert (difference.ordinals.tolist(), difference.tombstones.tolist()) == ([1, 2, 70], [0, 0, 1])
    theirs.note(difference)
    assert theirs.all().vectors.tolist() == mine.all().vectors.tolist()
    assert len(mine.difference(theirs.all())) == 0
