"""The gRPC face: translate in, one call, translate out."""

from __future__ import annotations

from headrace.ranker import requests
from headrace.ranker.admission import Admission
from headrace.ranker.answer import Answer, RankedProduct
from headrace.ranker.catalogue import Catalogue
from headrace.ranker.impressions import ImpressionLog, Shown
from headrace.ranker.lexical import LexicalIndex
from headrace.ranker.rank import CandidateRanker
from headrace.ranker.recommend import Recommender
from headrace.ranker.releases import Releases
from headrace.ranker.search import ProductSearch
from headrace.runtime.calls import remaining_s
from headrace.runtime.door import Context
from headrace.runtime.eventlog import Record
from headrace.runtime.telemetry import counter
from headrace.v1 import common_pb2, log_pb2, ranker_pb2, ranker_pb2_grpc

# methods that take part in admission
ANSWERS = ("Recommend", "Search", "Rank")

_answers = counter("headrace.ranker.answers", "{answer}", "answers given, by method and whether degraded")


class Status:
    """What is loaded and what was done, for GetRankerStatus."""

    def __init__(
        self, catalogue: Catalogue, lexical: LexicalIndex, releases: Releases, impressions: ImpressionLog | None
    ) -> None:
        self._catalogue = catalogue
        self._lexical = lexical
        self._releases = releases
        self._impressions = impressions
        self._answers = 0
        self._degraded = 0

    def count(self, method: str, answer: Answer) -> None:
        is_degraded = bool(answer.degraded_reasons)
        self._answers += 1
        self._degraded += is_degraded
        _answers.add(1, {"method": method, "degraded": is_degraded})

    def now(self) -> ranker_pb2.GetRankerStatusResponse:
        served, refused, impressions = self._releases.current, self._releases.refused, self._impressions
        return ranker_pb2.GetRankerStatusResponse(
            release=served.release if served else "",
            space=served.vectors.space if served else "",
            items=self._catalogue.described,
            vectors=served.vectors.count if served else 0,
            feature_offset=self._catalogue.offset,
            delta_sequence=served.vectors.applied_sequence if served else 0,
            refused_release=refused.release,
            refused_reason=refused.reason,
            answers=self._answers,
            degraded_answers=self._degraded,
            lexical_documents=self._lexical.documents,
            impressions_logged=impressions.logged if impressions else 0,
            impressions_dropped=impressions.dropped if impressions else 0,
            vectors_log_offset=served.vectors.log_offset if served else 0,
            shadow_release=self._releases.shadow.release if self._releases.shadow else "",
        )


class RankerServicer(ranker_pb2_grpc.RankerServiceServicer):
    """Recommendations, searches and rankings."""

    def __init__(
        self,
        recommender: Recommender,
        search: ProductSearch,
        ranker: CandidateRanker,
        admission: Admission,
        status: Status,
        default_deadline_s: float,
    ) -> None:
        self._recommender = recommender
        self._search = search
        self._ranker = ranker
        self._admission = admission
        self._status = status
        self._default_deadline_s = default_deadline_s

    async def Recommend(self, request: ranker_pb2.RecommendRequest, context: Context) -> ranker_pb2.RecommendResponse:
        async with self._admission.turn():
            wanted = requests.recommendation(request)
            answer = await self._recommender.recommend(wanted, self._deadline_s())
        self._status.count("Recommend", answer)
        return recommended(answer, request.return_products)

    async def Search(self, request: ranker_pb2.SearchRequest, context: Context) -> ranker_pb2.SearchResponse:
        async with self._admission.turn():
            wanted = requests.product_query(request)
            answer = await self._search.search(wanted, self._deadline_s())
        self._status.count("Search", answer)
        return ranker_pb2.SearchResponse(
            results=_results(answer, request.return_products),
            info=_info(answer),
            next_page_token=answer.next_page_token,
            total_size=answer.total_size,
        )

    async def Rank(self, request: ranker_pb2.RankRequest, context: Context) -> ranker_pb2.RankResponse:
        async with self._admission.turn():
            wanted = requests.ranking(request)
            answer = await self._ranker.rank(wanted, self._deadline_s())
        self._status.count("Rank", answer)
        return ranker_pb2.RankResponse(results=_results(answer, with_products=False), info=_info(answer))

    async def GetRankerStatus(
        self, request: ranker_pb2.GetRankerStatusRequest, context: Context
    ) -> ranker_pb2.GetRankerStatusResponse:
        return self._status.now()

    def _deadline_s(self) -> float:
        """Seconds until the caller wants its answer, after waiting for a turn."""
        left_s = remaining_s()
        return self._default_deadline_s if left_s is None else left_s


def impression_record(shown: Shown) -> Record:
    """The log record of a shown list; its token is its id, so that it is counted once."""
    rows, columns = shown.features.shape
    features = common_pb2.Matrix(rows=rows, columns=columns, values=shown.features.astype("<f4").tobytes())
    message = log_pb2.Impression(
        attribution_token=shown.attribution_token,
        user_key=shown.user_key,
        release=shown.release,
        track=shown.exposure.track,
        rollout=shown.exposure.rollout,
        arm=shown.exposure.arm,
        serving_config=shown.serving_config,
        item_ordinals=shown.ordinals.astype("<u4").tobytes(),
        scores=shown.scores.astype("<f4").tobytes(),
        propensities=shown.propensities.astype("<f4").tobytes(),
        policy=shown.policy.name,
        explore_share=shown.policy.share,
        temperature=shown.policy.temperature,
        slate_size=shown.policy.slate,
        features=features,
        feature_schema=shown.feature_schema,
        time_us=shown.time_us,
    )
    return Record(
        kind="impression",
        key=shown.user_key,
        event_id=f"impression:{shown.attribution_token}",
        time_us=shown.time_us,
        payload=message.SerializeToString(),
    )


def recommended(answer: Answer, with_products: bool) -> ranker_pb2.RecommendResponse:
    """The message of an answer."""
    return ranker_pb2.RecommendResponse(results=_results(answer, with_products), info=_info(answer))


def _results(answer: Answer, with_products: bool) -> list[ranker_pb2.RankedProduct]:
    return [_result(product, with_products) for product in answer.products]


def _result(product: RankedProduct, with_product: bool) -> ranker_pb2.RankedProduct:
    message = ranker_pb2.RankedProduct(product_id=product.product_id, score=product.score, reasons=product.reasons)
    if with_product and product.listing is not None:
        message.product.ParseFromString(product.listing.document)
    return message


def _info(answer: Answer) -> ranker_pb2.AnswerInfo:
    return ranker_pb2.AnswerInfo(
        attribution_token=answer.attribution_token,
        release=answer.release,
        space=answer.space,
        degraded_reasons=answer.degraded_reasons,
        stage_ms=answer.stage_ms,
        state_offset=answer.state_offset,
        delta_sequence=answer.delta_sequence,
        track=answer.track,
        impression=impression_record(answer.shown).payload if answer.shown else b"",
    )
