"""Whether an answer of the canary may be shown: checked as if it came from outside, for it is what is being tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from google.protobuf.message import DecodeError

from headrace.model.arms import CANARY
from headrace.model.attribution import Tokens
from headrace.ranker.exposure import Exposure
from headrace.ranker.fallback import FallbackError, Reason
from headrace.ranker.paging import Page, page_of
from headrace.ranker.plan import HeldPlan
from headrace.ranker.rank import Ranking
from headrace.ranker.recommend import Recommendation
from headrace.ranker.search import ProductQuery
from headrace.runtime.eventlog import Record
from headrace.v1 import log_pb2, ranker_pb2

Wanted: TypeAlias = Recommendation | ProductQuery | Ranking
R = TypeVar("R", ranker_pb2.RecommendResponse, ranker_pb2.SearchResponse, ranker_pb2.RankResponse)


@dataclass(frozen=True, slots=True)
class Checked(Generic[R]):
    """An answer that may be shown, and the record to log if it is; None: it has none."""

    response: R
    impression: Record | None


class AnswerCheck:
    """Checks answers against the plan and the suite's own tokens."""

    def __init__(self, held: HeldPlan, tokens: Tokens) -> None:
        self._held = held
        self._tokens = tokens

    def checked(self, response: R, wanted: Wanted) -> Checked[R]:
        """The answer without what is between rankers only. FallbackError: it must not be shown, and why."""
        info = response.info
        _require(info.track == CANARY, f"track is {info.track!r}")
        if not self._held.is_canary(info.release, info.plan_sequence):
            raise FallbackError(Reason.RELEASE, f"release is {info.release!r}")
        _check_results(response.results, wanted)
        if isinstance(response, ranker_pb2.SearchResponse) and isinstance(wanted, ProductQuery):
            _check_page(response, wanted)
        self._check_token(info, wanted)
        impression = _impression(info, wanted)
        info.ClearField("impression")
        info.ClearField("plan_sequence")
        return Checked(response, impression)

    def _check_token(self, info: ranker_pb2.AnswerInfo, wanted: Wanted) -> None:
        try:
            facts = self._tokens.facts(info.attribution_token)
        except (ValueError, IndexError) as error:
            raise FallbackError(Reason.INVALID, f"attribution_token: {error}") from error
        exposure = wanted.asker.exposure
        said = facts.release, facts.rollout, facts.arm, facts.track
        _require(said == (info.release, exposure.rollout, exposure.arm, CANARY), f"attribution_token says {said}")
        _require(self._tokens.is_of(facts, wanted.asker.user_key), "attribution_token is somebody else's")


def _require(holds: bool, details: str) -> None:
    if not holds:
        raise FallbackError(Reason.INVALID, details)


def _check_results(results: Sequence[ranker_pb2.RankedProduct], wanted: Wanted) -> None:
    if not all(math.isfinite(result.score) for result in results):
        raise FallbackError(Reason.NOT_FINITE, "scores")
    ids = {result.product_id for result in results}
    _require(len(ids) == len(results), "a product comes twice")
    _require("" not in ids, "a product has no id")
    if isinstance(wanted, Ranking):
        _require(ids == set(wanted.product_ids), "not the products that were to be ranked")
    else:
        _require(len(results) <= wanted.page_size, f"{len(results)} products where {wanted.page_size} were wanted")
    strange = next((each.product.id for each in results if each.product.id not in ("", each.product_id)), None)
    _require(strange is None, f"product {strange!r} under another's id")


def _check_page(response: ranker_pb2.SearchResponse, wanted: ProductQuery) -> None:
    _require(response.total_size >= 0, f"total_size is {response.total_size}")
    if not response.next_page_token:
        return
    try:
        page = page_of(response.next_page_token, wanted.key)
    except ValueError as error:
        raise FallbackError(Reason.INVALID, f"next_page_token {error}") from error
    _require(page == Page(wanted.page.offset + wanted.page_size, CANARY), f"next_page_token is of {page}")


def _impression(info: ranker_pb2.AnswerInfo, wanted: Wanted) -> Record | None:
    if not info.impression:
        return None
    try:
        impression = log_pb2.Impression.FromString(info.impression)
    except DecodeError as error:
        raise FallbackError(Reason.INVALID, f"impression: {error}") from error
    said = Exposure(impression.rollout, impression.arm, impression.track)
    exposure = Exposure(wanted.asker.exposure.rollout, wanted.asker.exposure.arm, CANARY)
    _require(said == exposure, f"impression says {said}")
    _require(impression.release == info.release, f"impression is of release {impression.release!r}")
    _require(impression.attribution_token == info.attribution_token, "impression of another answer")
    _require(impression.user_key == wanted.asker.user_key, "impression is somebody else's")
    return impression_record(impression)


def impression_record(impression: log_pb2.Impression) -> Record:
    """The log record of a shown list; its token is its id, so that it is counted once."""
    return Record(
        kind="impression",
        key=impression.user_key,
        event_id=f"impression:{impression.attribution_token}",
        time_us=impression.time_us,
        payload=impression.SerializeToString(),
    )
