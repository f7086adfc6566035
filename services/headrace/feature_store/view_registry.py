"""Which views there are, and that one name and version has one definition for ever.

What was ever registered over a data folder is kept in a file beside the snapshots: a view may be taken away and come
back, but not as another one.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from headrace.feature_store.feature_names import AnyView
from headrace.feature_store.views import VIEWS
from headrace.feature_store.windowed_view import WindowedView
from headrace.runtime.atomic import write_atomically
from headrace.runtime.settings import SettingsError
from headrace.runtime.stored_json import parsed

SETTING = "HEADRACE_FEATURE_STORE_VIEWS"
MOST_VIEWS = 64


def views_of_module(name: str) -> tuple[WindowedView, ...]:
    """The `VIEWS` of a module that a deployment names; none for no name. SettingsError names every fault of every view.

    A view's module is code of the deployment: it must be importable (PYTHONPATH) by the feature store.
    """
    if not name:
        return ()
    try:
        declared = importlib.import_module(name).VIEWS
    # it is not our code: whatever it raises is a fault of the setting
    except Exception as error:
        raise SettingsError(f"{SETTING}={name!r}: {type(error).__name__}: {error}") from error
    try:
        views = tuple(declared)
    except TypeError as error:
        raise SettingsError(
            f"{SETTING}={name!r}: VIEWS must be a sequence of WindowedView, got {declared!r}"
        ) from error
    faults = list(_faults(views))
    if faults:
        raise SettingsError(f"{SETTING}={name!r}: " + "; ".join(faults))
    return views


def _faults(views: Sequence[object]) -> Iterator[str]:
    if len(views) > MOST_VIEWS:
        yield f"at most {MOST_VIEWS} views, got {len(views)}"
    taken = {view.name for view in VIEWS}
    for place, view in enumerate(views):
        if not isinstance(view, WindowedView):
            yield f"VIEWS[{place}]: must be a WindowedView, got {view!r}"
            continue
        yield from (f"{view.name}: {fault}" for fault in view.faults())
        if view.name in taken:
            yield f"{view.name}: there is a view of this name already"
        taken.add(view.name)


def register(path: Path, views: Iterable[WindowedView]) -> None:
    """Notes the definitions of the built-in views and of `views` in the file at `path`, durably.

    SettingsError names every view whose definition is not the one that was registered under its version.
    """
    known = parsed(dict[str, str], path.read_bytes(), str(path)) if path.exists() else {}
    registered: list[AnyView] = [*VIEWS, *views]
    given = {view.key: view.definition_hash() for view in registered}
    changed = [
        f"{key}: its definition changed (registered: {known[key][:12]}, this: {found[:12]}): give it another version"
        for key, found in given.items()
        if known.get(key, found) != found
    ]
    if changed:
        raise SettingsError(f"feature views in {path}: " + "; ".join(changed))
    if not given.keys() <= known.keys():
        write_atomically(path, json.dumps({**known, **given}, indent=1, sort_keys=True).encode())
