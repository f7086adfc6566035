"""What was answered then is what is told of then: a replay of the simulated shop, all answers compared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from headrace.datasets.simulated_shop import ShopSettings
from headrace.feature_store.context_facts import CONTEXT_FEATURES
from headrace.feature_store.windowed_view import WindowedView
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.v1 import common_pb2, log_pb2
from headrace.v1 import feature_store_pb2 as pb

VIEWS = (
    WindowedView("looks", "item", ("detail-page-view",), ("1h", "1d")),
    WindowedView("shelf", "category", ("detail-page-view", "purchase-complete"), ("1d",)),
    WindowedView("searches", "user", ("search",), ("1d",)),
    WindowedView("acts", "channel", ("search", "purchase-complete"), ("7d",)),
)
ITEMS = 12


def _with_facts(records: list[Record], people: list[str], items: int, chance: np.random.Generator) -> Iterator[Record]:
    """The records, and said among them what holds of products, categories, brands, people and devices around then."""
    kinds, clock_us = common_pb2.EntityKind, 0
    for number, record in enumerate(records):
        yield record
        clock_us = max(clock_us, record.time_us if record.kind == "user-event" else 0)
        if not clock_us or number % 4:
            continue
        name = str(chance.choice(["promotion.display", "discount", "coupon", "campaign"]))
        fact = common_pb2.DatedFact(
            # some are said again: ended, corrected, taken back
            fact_id=f"f{chance.integers(200)}",
            name=name,
            number=float(chance.uniform()),
            campaign_id="" if name == "coupon" and chance.random() < 0.2 else f"c{chance.integers(4)}",
            store_id=str(chance.choice(["", "7", "8"])),
            deleted=bool(chance.random() < 0.1),
        )
        fact.valid_from.FromMicroseconds(clock_us + int(chance.integers(-3, 3)) * 3_600_000_000)
        fact.valid_until.FromMicroseconds(clock_us + int(chance.integers(4, 30)) * 3_600_000_000)
        ordinal = None
        if name == "campaign":
            person = str(chance.choice(people))
            fact.entity_kind = kinds.ENTITY_KIND_USER if person[0] == "u" else kinds.ENTITY_KIND_VISITOR
            fact.entity_id = person[2:]
        elif record.kind == "product-change":
            product = log_pb2.ProductChange.FromString(record.payload).product
            fact.entity_kind, fact.entity_id = kinds.ENTITY_KIND_CATEGORY, product.categories[0]
            if chance.random() < 0.5 and product.brands:
                fact.entity_kind, fact.entity_id = kinds.ENTITY_KIND_BRAND, product.brands[0]
        else:
            ordinal = int(chance.integers(items))
            fact.entity_kind, fact.entity_id = kinds.ENTITY_KIND_PRODUCT, f"of ordinal {ordinal}"
        logged = log_pb2.LoggedDatedFact(fact=fact, item_ordinal=ordinal)
        yield Record("dated-fact", "", f"fact-{number}", clock_us, logged.SerializeToString())


def _matrices(message: object) -> list[np.ndarray]:
    names = ("user_features", "item_features", "channel_features")
    matrices = [getattr(message, name) for name in names]
    return [np.frombuffer(matrix.values, "<f4").reshape(matrix.rows, matrix.columns) for matrix in matrices]


async def _past(stub, **columns: object) -> tuple[list[np.ndarray], np.ndarray]:
    """Matrices of user, item and channel features in the order of the labels, and the log's time at each."""
    request = pb.GetHistoricalFeaturesRequest(**columns)
    parts = [part async for part in stub.GetHistoricalFeatures(request, timeout=60)]
    order = np.argsort(np.concatenate([np.frombuffer(part.labels, "<u4") for part in parts]))
    stacked = [np.concatenate(part)[order] for part in zip(*map(_matrices, parts), strict=True)]
    assert len(np.unique(order)) == len(order)
    return stacked, np.concatenate([np.frombuffer(part.now_us, "<i8") for part in parts])[order]


async def test_all_served_answers_are_told_again_bit_for_bit(serve, shop_records, event_log: SqliteEventLog) -> None:
    chance = np.random.default_rng(4)
    records = list(shop_records(ShopSettings(seed=4, products=120, users=150, days=2, visits_a_day=1.0)))
    people = sorted({record.key for record in records if record.kind == "user-event"})
    # devices are joined to people on the way, and facts are about either
    events = [log_pb2.LoggedUserEvent.FromString(one.payload) for one in records if one.kind == "user-event"]
    devices = {f"v:{event.event.visitor_id}" for event in events}
    records = list(_with_facts(records, people + sorted(devices), 120, chance))
    assert len(records) > 1_000
    asked: list[tuple[str, np.ndarray]] = []
    answers: list[pb.GetOnlineFeaturesResponse] = []
    states: list[tuple[str, pb.GetUserStateResponse]] = []
    async with serve(views=VIEWS, snapshot_every_s=0.05) as stub:

        async def ask(min_offset: int) -> None:
            person, items = str(chance.choice(people)), chance.integers(0, 140, ITEMS).astype("<u4")
            request = pb.GetOnlineFeaturesRequest(
                user_key=person, item_ordinals=items.tobytes(), channel=1, min_offset=min_offset, store_id="7"
            )
            asked.append((person, items))
            answers.append(await stub.GetOnlineFeatures(request, timeout=20))

        start = 0
        while start < len(records):
            size = int(chance.integers(1, 60))
            end = (await event_log.append(records[start : start + size]))[-1].offset
            start += size
            # in the middle of the fold, and after it
            for min_offset in (0, end):
                person = str(chance.choice(people))
                states.append((person, await stub.GetUserState(pb.GetUserStateRequest(user_key=person), timeout=20)))
                await ask(min_offset)
        # one in flight at a time, so answers stand in the order in which they were asked for
        offsets = [answer.offset for answer in answers]
        found, clocks_us = await _past(
            stub,
            user_keys=[person for person, _ in asked for _ in range(ITEMS)],
            item_ordinals=np.concatenate([items for _, items in asked]).astype("<u4").tobytes(),
            offsets=np.repeat(np.array(offsets, "<i8"), ITEMS).tobytes(),
            channel=1,
            store_id="7",
        )
        of_users, _ = await _past(
            stub,
            user_keys=[person for person, _ in states],
            offsets=np.array([state.offset for _, state in states], "<i8").tobytes(),
            features=["user_windows"],
        )
    user, items, channel = found
    served_items = np.concatenate([_matrices_of_items(answer) for answer in answers])
    served_users = np.stack([np.frombuffer(answer.user_features, "<f4") for answer in answers]).repeat(ITEMS, axis=0)
    served_channels = np.stack([np.frombuffer(answer.channel_features, "<f4") for answer in answers])
    assert len(served_items) == ITEMS * len(answers) > 1_000
    assert items.tobytes() == served_items.tobytes()
    assert user.tobytes() == served_users.tobytes()
    assert channel.tobytes() == served_channels.repeat(ITEMS, axis=0).tobytes()
    assert clocks_us.tolist() == [answer.now_us for answer in answers for _ in range(ITEMS)]
    assert of_users[0].tobytes() == b"".join(state.features for _, state in states)
    # it was not asked of an empty shop
    assert np.count_nonzero(served_users) > 100
    assert np.count_nonzero(served_items[:, -4:]) > 100
    names = list(answers[0].item_feature_names)
    facts = served_items[:, [names.index(f"dated_facts:{name}") for name in CONTEXT_FEATURES]]
    told = [np.count_nonzero(column) for column in facts.T]
    assert all(50 < count < len(facts) for count in told), told


def _matrices_of_items(answer: pb.GetOnlineFeaturesResponse) -> np.ndarray:
    matrix = answer.item_features
    return np.frombuffer(matrix.values, "<f4").reshape(matrix.rows, matrix.columns)


async def test_a_moment_that_is_not_over_is_refused_and_every_fault_named(
    serve, shop_records, event_log: SqliteEventLog
) -> None:
    records = list(shop_records(ShopSettings(seed=4, products=20, users=10, days=1)))
    end = (await event_log.append(records))[-1].offset
    newest_us = max(record.time_us for record in records if record.kind == "user-event")
    async with serve() as stub:
        await stub.GetUserState(pb.GetUserStateRequest(user_key="u:x", min_offset=end), timeout=20)
        packed = {"item_ordinals": np.array([1], "<u4").tobytes(), "features": ["item_windows:views_7d"]}
        for moments in ({"offsets": np.array([end + 1], "<i8")}, {"times_us": np.array([newest_us], "<i8")}):
            with pytest.raises(grpc.aio.AioRpcError) as too_early:
                await _past(stub, **packed, **{name: column.tobytes() for name, column in moments.items()})
            assert too_early.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(grpc.aio.AioRpcError) as faulty:
            await _past(
                stub,
                user_keys=["u:a"] * 3,
                item_ordinals=b"abc",
                offsets=np.array([1, -2], "<i8").tobytes(),
                times_us=np.array([3], "<i8").tobytes(),
                features=["colour"],
            )
        before, _ = await _past(stub, **packed, times_us=np.array([0], "<i8").tobytes())
    details = faulty.value.details()
    for fault in ("must be 4 bytes a label", "either these or times_us", "user_keys: must be one a label", "colour"):
        assert fault in details
    assert before[1].tolist() == [[0.0]]


async def test_only_few_calls_for_the_past_wait(serve, shop_records, event_log: SqliteEventLog) -> None:
    records = list(shop_records(ShopSettings(seed=4, products=60, users=60, days=2, visits_a_day=1.0)))
    end = (await event_log.append(records))[-1].offset
    async with serve() as stub:
        await stub.GetUserState(pb.GetUserStateRequest(user_key="u:x", min_offset=end), timeout=20)
        label = {"item_ordinals": np.array([1], "<u4").tobytes(), "offsets": np.array([end], "<i8").tobytes()}
        calls = [asyncio.create_task(_past(stub, **label)) for _ in range(6)]
        # what is true now is told meanwhile: the past is folded beside the serving state
        for _ in range(3):
            now = await stub.GetOnlineFeatures(pb.GetOnlineFeaturesRequest(item_ordinals=label["item_ordinals"]))
        assert not all(call.done() for call in calls)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
    assert {one.code() for one in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(refused) == 2
    rows = [one[0][1].tobytes() for one in outcomes if not isinstance(one, grpc.aio.AioRpcError)]
    assert set(rows) == {now.item_features.values}


async def test_a_past_that_the_log_forgot_is_refused(serve, shop_records, event_log: SqliteEventLog) -> None:
    records = list(shop_records(ShopSettings(seed=4, products=100, users=60, days=1)))
    end = (await event_log.append(records[:100]))[-1].offset
    async with serve() as stub:
        await stub.GetUserState(pb.GetUserStateRequest(user_key="u:x", min_offset=end), timeout=20)
    await event_log.trim(1 << 62)
    end = (await event_log.append(records[100:130]))[-1].offset
    async with serve() as stub:
        await stub.GetUserState(pb.GetUserStateRequest(user_key="u:x", min_offset=end), timeout=20)
        items = np.arange(80, dtype="<u4").tobytes()
        now = await stub.GetOnlineFeatures(pb.GetOnlineFeaturesRequest(item_ordinals=items, user_key="u:x"))
        # the snapshot there is kept: from it on it can be told
        (_, told, _), _ = await _past(stub, item_ordinals=items, offsets=np.full(80, end, "<i8").tobytes())
        assert told.tobytes() == now.item_features.values
        label = {"item_ordinals": np.array([1], "<u4").tobytes(), "features": ["price"]}
        with pytest.raises(grpc.aio.AioRpcError) as forgotten:
            await _past(stub, **label, offsets=np.array([50], "<i8").tobytes())
    assert forgotten.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "the log begins at offset" in forgotten.value.details()
