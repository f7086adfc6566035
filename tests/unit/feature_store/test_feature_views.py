"""Views as code: what may be declared, and that one version has one definition."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headrace.datasets import as_of_join
from headrace.feature_store import stability, windowed_view
from headrace.feature_store.feature_names import FeatureNames, Keys
from headrace.feature_store.view_registry import register, views_of_module
from headrace.feature_store.views import VIEWS
from headrace.feature_store.windowed_view import WindowedView
from headrace.runtime.errors import Faults
from headrace.runtime.settings import SettingsError

VIEW = "detail-page-view"
STORE_VIEWS = WindowedView("store_views", "item", (VIEW,), ("1h", "1d"), channels=(4,))


def _module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    name = f"shop_{abs(hash(folder))}"
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop(name, None)
    return name


@pytest.mark.parametrize("module", [windowed_view, stability, as_of_join])
def test_the_examples_are_true(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 2
    assert found.failed == 0


def test_a_module_declares_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "from headrace.feature_store.windowed_view import WindowedView\n"
        f"VIEWS = (WindowedView('store_views', 'item', ('{VIEW}',), ('1h', '1d'), channels=(4,)),)\n"
    )
    assert views_of_module(_module(tmp_path, monkeypatch, text)) == (STORE_VIEWS,)
    assert views_of_module("") == ()


def test_every_fault_of_every_view_is_in_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "from headrace.feature_store.windowed_view import WindowedView\n"
        "VIEWS = (\n"
        "    WindowedView('Store', 'shelf', ('look',), ('1w', '1h', '1h', '91d'), channels=(9,), version=0),\n"
        "    WindowedView('searches', 'item', ('search',), ()),\n"
        "    WindowedView('searches', 'user', (), ('1h',)),\n"
        "    WindowedView('item_windows', 'user', ('search',), ('1h',)),\n"
        "    7,\n"
        ")\n"
    )
    with pytest.raises(SettingsError) as refused:
        views_of_module(_module(tmp_path, monkeypatch, text))
    for fault in (
        "Store: name must be",
        "Store: version must be at least 1, got 0",
        "Store: entity must be one of",
        "got 'look'",
        "got '1w'",
        "got '91d'",
        "Store: windows must differ",
        "channels must be from 0 to 7, got 9",
        "searches: event_types of an entity 'item' must be of",
        "searches: windows must not be empty",
        "searches: event_types must not be empty",
        "searches: there is a view of this name already",
        "item_windows: there is a view of this name already",
        "VIEWS[4]: must be a WindowedView, got 7",
    ):
        assert fault in str(refused.value)


@pytest.mark.parametrize("text", ["import nothing_of_this_name", "VIEW = ()", "VIEWS = 7", "1 / 0"])
def test_a_module_without_views_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="HEADRACE_FEATURE_STORE_VIEWS='shop_"):
        views_of_module(_module(tmp_path, monkeypatch, text))


def test_another_definition_needs_another_version(tmp_path: Path) -> None:
    path = tmp_path / "views.json"
    register(path, (STORE_VIEWS,))
    register(path, ())  # taken away …
    register(path, (STORE_VIEWS,))  # … and back
    other = WindowedView("store_views", "item", (VIEW,), ("1h",), channels=(4,))
    with pytest.raises(SettingsError, match=r"store_views@1: its definition changed"):
        register(path, (other,))
    register(path, (WindowedView("store_views", "item", (VIEW,), ("1h",), channels=(4,), version=2),))


def test_what_does_not_decide_the_values_is_not_in_the_hash() -> None:
    types = (VIEW, "add-to-cart")
    first = WindowedView("looks", "item", types, ("1h",), channels=(1, 2), description="one")
    again = WindowedView("looks", "item", types[::-1], ("1h",), channels=(2, 1), description="two")
    assert first.definition_hash() == again.definition_hash()


# a change of these is a new version of the view: what is registered over a data folder is refused otherwise
BUILT_IN = {
    "item_document@3": "ab058d56c0d3",
    "item_windows@1": "0ec16ff04529",
    "item_decay@1": "0e138813564b",
    "item_covisitation@1": "3182d9652918",
    "user_windows@1": "11f5714c1a4a",
    "category_windows@1": "1fc94ed5e00b",
    "brand_windows@1": "467bf2cf229f",
    "dated_facts@1": "faf49368a11c",
    "candidate@3": "e4243f57b1ad",
}


def test_built_in_views_are_those_of_their_versions() -> None:
    assert {view.key: view.definition_hash()[:12] for view in VIEWS} == BUILT_IN


def test_a_selection_names_what_it_reads_and_its_schema_follows_the_definitions() -> None:
    keys, faults = Keys(user=True, item=True, channel=False), Faults()
    wider = WindowedView("store_views", "item", (VIEW,), ("1h", "1d"), channels=(4, 5))
    one = FeatureNames((STORE_VIEWS,)).select(("price", "store_views:count_1h"), keys, faults)
    other = FeatureNames((wider,)).select(("price", "store_views:count_1h"), keys, faults)
    assert not faults
    assert one is not None
    assert other is not None
    assert one.item.names == ("item_document:price", "store_views:count_1h")
    assert one.views == ("store_views",)
    assert one.schema != other.schema
