"""What may be shown, and what a filter leaves of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.items import ITEM_FEATURES, NEIGHBOURS, NO_NEIGHBOUR, Items
from headrace.ranker.catalogue import Catalogue, ItemRows, Listing, category_path
from headrace.ranker.filters import Filter, Filters, mask_of

NOW_US = 1_700_000_000_000_000


def stocked(*listings: Listing) -> Catalogue:
    catalogue = Catalogue(Items())
    catalogue.put(listings)
    catalogue.advance(NOW_US, 1)
    return catalogue


def test_a_category_path_has_even_separators():
    assert category_path(" Shoes>Boots  > ") == "Shoes > Boots"


def test_a_category_holds_all_below_it_but_not_its_namesakes():
    catalogue = stocked(
        Listing(0, "a", "a", categories=("Shoes > Boots",)),
        Listing(1, "b", "b", categories=("Shoes",)),
        Listing(2, "c", "c", categories=("Shoes and bags",)),
    )
    assert mask_of(Filter(categories=("Shoes",)), catalogue).tolist() == [True, True, False]
    assert mask_of(Filter(categories=("Shoes>Boots",)), catalogue).tolist() == [True, False, False]
    assert mask_of(Filter(categories=("Hats",)), catalogue).tolist() == [False, False, False]


def test_price_bounds_are_inclusive_and_leave_out_what_has_no_price():
    catalogue = stocked(Listing(0, "a", "a", price=1.0), Listing(1, "b", "b", price=2.0), Listing(2, "c", "c"))
    assert mask_of(Filter(min_price=1.0, max_price=1.0), catalogue).tolist() == [True, False, False]
    assert mask_of(Filter(), catalogue).tolist() == [True, True, True]


def test_what_cannot_be_bought_is_shown_only_on_request():
    catalogue = stocked(Listing(0, "a", "a", is_available=False))
    assert not mask_of(Filter(), catalogue)[0]
    assert mask_of(Filter(include_unavailable=True), catalogue)[0]


def test_allowed_and_denied_ids_may_be_unknown():
    catalogue = stocked(Listing(0, "a", "a"), Listing(1, "b", "b"))
    assert mask_of(Filter(allow_ids=("b", "nobody")), catalogue).tolist() == [False, True]
    assert mask_of(Filter(deny_ids=("b", "nobody")), catalogue).tolist() == [True, False]


def test_a_product_appears_and_goes_as_the_logs_time_passes():
    catalogue = stocked(Listing(0, "a", "a", publish_us=NOW_US + 10, expire_us=NOW_US + 20))
    filters = Filters(catalogue)
    seen = []
    for now_us in (NOW_US, NOW_US + 10, NOW_US + 19, NOW_US + 20):
        catalogue.advance(now_us, 1)
        seen.append(bool(filters.allowed(Filter()).mask[0]))
    assert seen == [False, True, True, False]


def test_a_mask_is_kept_until_the_catalogue_changes():
    catalogue = stocked(Listing(0, "a", "a"))
    filters = Filters(catalogue)
    first = filters.allowed(Filter())
    catalogue.advance(NOW_US + 1, 2)
    assert filters.allowed(Filter()) is first
    catalogue.remove([0])
    assert filters.allowed(Filter()).count == 0


def test_only_so_many_masks_are_kept():
    catalogue = stocked(Listing(0, "a", "a"))
    filters = Filters(catalogue)
    first = filters.allowed(Filter(min_price=-1.0))
    for price in range(300):
        filters.allowed(Filter(min_price=float(price)))
    assert filters.allowed(Filter(min_price=-1.0)) is not first


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_bitmap_has_bit_o_of_byte_o_over_8(available):
    catalogue = stocked(*(Listing(o, f"p{o}", "x", is_available=each) for o, each in enumerate(available)))
    allowed = Filters(catalogue).allowed(Filter())
    if all(available):
        assert allowed.bitmap == b""
    else:
        assert [bool(allowed.bitmap[o // 8] >> (o % 8) & 1) for o in range(len(available))] == available
    assert allowed.of(np.arange(len(available) + 3, dtype=np.uint32)).tolist() == [*available, False, False, False]


def test_a_product_listed_anew_leaves_its_old_brand_and_category():
    catalogue = stocked(Listing(0, "a", "a", brands=("x",), categories=("C > D",)))
    catalogue.put([Listing(0, "a", "a", brands=("y",), categories=("E",))])
    assert not mask_of(Filter(brands=("x",)), catalogue)[0]
    assert not mask_of(Filter(categories=("C",)), catalogue)[0]
    assert mask_of(Filter(brands=("y",), categories=("E",)), catalogue)[0]


def test_an_ordinal_given_to_another_product_forgets_the_first():
    catalogue = stocked(Listing(0, "a", "a"))
    catalogue.put([Listing(0, "b", "b")])
    assert (catalogue.ordinal("a"), catalogue.ordinal("b")) == (None, 0)
    catalogue.remove([0])
    assert catalogue.described == 0
    assert catalogue.listing(0) is None
    assert catalogue.listing(99) is None


def test_items_seen_by_a_reader_keep_their_shape_while_the_catalogue_grows():
    catalogue = stocked(Listing(0, "a", "a"))
    view = catalogue.items.view()
    ordinals = np.array([5_000], np.uint32)
    rows = ItemRows(
        ordinals,
        np.ones((1, len(ITEM_FEATURES)), np.float32),
        np.full((1, NEIGHBOURS), NO_NEIGHBOUR, np.uint32),
        np.zeros((1, NEIGHBOURS), np.float32),
    )
    catalogue.update(rows)
    assert view.count == 1
    assert catalogue.items.view().count == 5_001


def test_before_the_log_has_a_time_the_wall_clock_decides():
    catalogue = Catalogue(Items())
    catalogue.put([Listing(0, "a", "a", publish_us=NOW_US)])
    assert catalogue.shown()[0]


@pytest.mark.parametrize("wanted", [Filter(), Filter(include_unavailable=True)])
def test_an_open_filter_asks_for_nothing_in_particular(wanted):
    assert wanted.is_open
    assert not Filter(brands=("x",)).is_open
