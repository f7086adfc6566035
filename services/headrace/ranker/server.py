"""The gRPC face: translate in, one call, translate out."""

from __future__ import annotations

from headrace.ranker import requests
from headrace.ranker.admission import Admission
from headrace.ranker.answer import Answer, RankedProduct
from headrace.ranker.arms import Arms, Call
from headrace.ranker.assignment import Assigner, Placement
from headrace.ranker.canary_answer import R, impression_record
from headrace.ranker.catalogue import Catalogue
from headrace.ranker.hop import METHODS
from headrace.ranker.impressions import ImpressionLog, Shown
from headrace.ranker.lexical import LexicalIndex
from headrace.ranker.marks import marks_of
from headrace.ranker.plan import HeldPlan
from headrace.ranker.rank import CandidateRanker
from headrace.ranker.recommend import Recommender
from headrace.ranker.releases import Releases
from headrace.ranker.search import ProductSearch
from headrace.ranker.trust import Forwarders
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
        self,
        catalogue: Catalogue,
        lexical: LexicalIndex,
        releases: Releases,
        impressions: ImpressionLog | None,
        held: HeldPlan,
        arms: Arms,
        track: str,
    ) -> None:
        self._catalogue = catalogue
        self._lexical = lexical
        self._releases = releases
        self._impressions = impressions
        self._held = held
        self._arms = arms
        self._track = track
        self._answers = 0
        self._degraded = 0

    @property
    def plan_sequence(self) -> int:
        return self._held.newest.sequence if self._held.newest else 0

    def count(self, method: str, is_degraded: bool) -> None:
        self._answers += 1
        self._degraded += is_degraded
        _answers.add(1, {"method": method, "degraded": is_degraded})

    def now(self) -> ranker_pb2.GetRankerStatusResponse:
        served, refused, impressions = self._releases.current, self._releases.refused, self._impressions
        assignment = self._held.assignment()
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
            track=self._track,
            plan_sequence=self.plan_sequence,
            plan_is_stale=self._held.is_stale,
            share_bp=assignment.share_bp if assignment else 0,
            rollout=assignment.rollout if assignment else "",
            fallbacks=self._arms.counts.fallbacks,
            canary_is_asked=assignment is not None and self._arms.is_asking,
        )


class RankerServicer(ranker_pb2_grpc.RankerServiceServicer):
    """Recommendations, searches and rankings."""

    def __init__(
        self,
        recommender: Recommender,
        search: ProductSearch,
        ranker: CandidateRanker,
        admission: Admission,
        assigner: Assigner,
        forwarders: Forwarders,
        arms: Arms,
        status: Status,
        default_deadline_s: float,
    ) -> None:
        self._recommender = recommender
        self._search = search
        self._ranker = ranker
        self._admission = admission
        self._assigner = assigner
        self._forwarders = forwarders
        self._arms = arms
        self._status = status
        self._default_deadline_s = default_deadline_s

    async def Recommend(self, request: ranker_pb2.RecommendRequest, context: Context) -> ranker_pb2.RecommendResponse:
        placement = self._placed(request, context)
        wanted = requests.recommendation(request, placement.exposure)

        async def own() -> ranker_pb2.RecommendResponse:
            async with self._admission.turn():
                answer = await self._recommender.recommend(wanted, self._deadline_s())
            return recommended(answer, request.return_products)

        return await self._answered(Call(ranker_pb2.RecommendResponse, request, wanted, placement, own))

    async def Search(self, request: ranker_pb2.SearchRequest, context: Context) -> ranker_pb2.SearchResponse:
        placement = self._placed(request, context)
        wanted = requests.product_query(request, placement.exposure)

        async def own() -> ranker_pb2.SearchResponse:
            async with self._admission.turn():
                answer = await self._search.search(wanted, self._deadline_s())
            return ranker_pb2.SearchResponse(
                results=_results(answer, request.return_products),
                info=_info(answer),
                next_page_token=answer.next_page_token,
                total_size=answer.total_size,
            )

        return await self._answered(Call(ranker_pb2.SearchResponse, request, wanted, placement, own))

    async def Rank(self, request: ranker_pb2.RankRequest, context: Context) -> ranker_pb2.RankResponse:
        placement = self._placed(request, context)
        wanted = requests.ranking(request, placement.exposure)

        async def own() -> ranker_pb2.RankResponse:
            async with self._admission.turn():
                answer = await self._ranker.rank(wanted, self._deadline_s())
            return ranker_pb2.RankResponse(results=_results(answer, with_products=False), info=_info(answer))

        return await self._answered(Call(ranker_pb2.RankResponse, request, wanted, placement, own))

    async def GetRankerStatus(
        self, request: ranker_pb2.GetRankerStatusRequest, context: Context
    ) -> ranker_pb2.GetRankerStatusResponse:
        return self._status.now()

    def _placed(
        self, request: ranker_pb2.RecommendRequest | ranker_pb2.SearchRequest | ranker_pb2.RankRequest, context: Context
    ) -> Placement:
        marks = marks_of(context.invocation_metadata())
        self._forwarders.check(marks, context)
        return self._assigner.placed(request.visitor_id, request.user_id, marks)

    async def _answered(self, call: Call[R]) -> R:
        response = await self._arms.answered(call)
        if call.placement.exposure.is_forwarded:
            response.info.plan_sequence = self._status.plan_sequence
        self._status.count(METHODS[call.kind], bool(response.info.degraded_reasons))
        return response

    def _deadline_s(self) -> float:
        """Seconds until the caller wants its answer, after waiting for a turn."""
        left_s = remaining_s()
        return self._default_deadline_s if left_s is None else left_s


def impression_message(shown: Shown) -> log_pb2.Impression:
    """The message of a shown list."""
    rows, columns = shown.features.shape
    features = common_pb2.Matrix(rows=rows, columns=columns, values=shown.features.astype("<f4").tobytes())
    return log_pb2.Impression(
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
        click_probabilities=b"" if shown.clicks is None else shown.clicks.astype("<f4").tobytes(),
        features=features,
        feature_schema=shown.feature_schema,
        time_us=shown.time_us,
    )


def recorded(shown: Shown) -> Record:
    """The log record of a shown list."""
    return impression_record(impression_message(shown))


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
        impression=impression_message(answer.shown).SerializeToString() if answer.shown else b"",
    )
