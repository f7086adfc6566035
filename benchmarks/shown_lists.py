"""Lists as a ranker shows and logs them, by its own exploration, and as gate 1 reads them from the log."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import FEATURE_SCHEMA
from headrace.ranker.choosing import chosen
from headrace.ranker.exploration import Exploration
from headrace.ranker.impressions import Shown
from headrace.ranker.ranking import Ranked
from headrace.ranker.server import impression_message
from headrace.ranker.sources import Candidates
from headrace.runtime.eventlog import LoggedRecord
from headrace.trainer.recent_lists import RecentLists, ShownLists
from headrace.trainer.records import slice_of
from headrace.v1 import common_pb2, log_pb2

_WINDOW_S = 1.0


def shown_list(
    exploration: Exploration,
    ordinals: NDArray[np.uint32],
    scores: NDArray[np.float32],
    features: NDArray[np.float32],
    token: str,
    user_key: str,
    time_us: int,
    release: str = "",
) -> Shown:
    """All candidates as one page."""
    candidates = Candidates(ordinals, np.zeros(len(ordinals), np.uint8))
    ranked = Ranked(candidates, scores, features).ordered(np.lexsort((ordinals, -scores)))
    choice = chosen(ranked, slice(0, len(ordinals)), exploration, token)
    return Shown(
        attribution_token=token,
        user_key=user_key,
        release=release,
        serving_config="home",
        ordinals=choice.ranked.candidates.ordinals,
        scores=choice.ranked.scores,
        features=choice.ranked.features,
        feature_schema=FEATURE_SCHEMA,
        time_us=time_us,
        propensities=choice.propensities,
        policy=choice.policy,
    )


def logged_lists(shown: Iterable[tuple[Shown, NDArray[np.uint32]]]) -> ShownLists:
    """What gate 1 knows of lists, and of what was looked at in each, once they are in the log and their time is up."""
    records = [record for one, looked in shown for record in _records(one, looked)]
    end_us = max(record.time_us for record in records) + int(3e6 * _WINDOW_S)
    found = slice_of([*records, _looked("u:nobody", "", (0,), end_us)], 0, len(records))
    lists = RecentLists(_WINDOW_S, len(records))
    lists.fold(found.impressions, found.events)
    return lists.all()


def _records(shown: Shown, looked: NDArray[np.uint32]) -> Iterable[LoggedRecord]:
    key, at = shown.user_key, shown.time_us
    yield _record("impression", key, at, impression_message(shown).SerializeToString())
    if len(looked):
        yield _looked(key, shown.attribution_token, looked.tolist(), at)


def _looked(key: str, token: str, ordinals: Iterable[int], time_us: int) -> LoggedRecord:
    event = common_pb2.UserEvent(event_type="detail-page-view", user_id=key[2:], attribution_token=token)
    logged = log_pb2.LoggedUserEvent(event=event, user_key=key, item_ordinals=ordinals, event_time_us=time_us)
    return _record("user-event", key, time_us, logged.SerializeToString())


def _record(kind: str, key: str, time_us: int, payload: bytes) -> LoggedRecord:
    return LoggedRecord(1, 0, time_us, kind, key, "", time_us, payload, "")
