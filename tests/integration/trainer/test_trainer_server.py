"""The trainer's face: status, releases, plan, parts."""

from __future__ import annotations

import asyncio
import hashlib

import grpc
import numpy as np
import pytest

from headrace.model.history import History
from headrace.model.serving_model import PARTS, TEXT_PART, ServingModel
from headrace.runtime.errors import FailedPreconditionError
from headrace.trainer.registry import number_of
from headrace.v1 import trainer_pb2


async def test_the_log_is_learned_and_a_release_published(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(30)])
    async with suite.trainer() as stub:
        status = await suite.learned(stub)
    assert status.vectors == 20
    assert status.slices >= 1
    assert status.examples > 0
    assert status.prequential[0].period == "2011-W10"
    assert 0 < status.learn_lag_p50_ms <= status.learn_lag_p99_ms


async def test_the_parts_of_a_release_make_a_model(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(10)])
    async with suite.trainer() as stub:
        await suite.learned(stub)
        [release] = (await stub.ListReleases(trainer_pb2.ListReleasesRequest())).releases
        parts = {part.name: await _fetched(stub, release.release, part.name) for part in release.parts}
    model = ServingModel.load({name: data for name, (data, _) in parts.items()})
    model.check_golden()
    assert set(parts) == {*PARTS, TEXT_PART}
    assert (release.release, release.parent, model.space) == ("r-000001", "", release.space)
    assert all(hashlib.sha256(data).hexdigest() == sha256 for data, sha256 in parts.values())
    assert model.user_vector(History.empty(), np.empty((0, 8), np.float32), 0).shape == (release.dimension,)


async def test_a_release_says_how_well_old_events_are_still_foreseen(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(30)])
    async with suite.trainer() as stub:
        await suite.learned(stub)
        release = (await stub.ListReleases(trainer_pb2.ListReleasesRequest())).releases[0]
    assert {"old_recall_at_20", "old_mrr_at_20", "new_recall_at_20", "forgetting"} <= release.metrics.keys()
    # twenty items: each is among the first twenty
    assert (release.metrics["old_recall_at_20"], release.metrics["forgetting"]) == (1.0, 0.0)


async def _fetched(stub, release: str, part: str) -> tuple[bytes, str]:
    chunks = [chunk async for chunk in stub.FetchArtifact(trainer_pb2.FetchArtifactRequest(release=release, part=part))]
    assert all(len(chunk.data) <= 1 << 20 for chunk in chunks)
    assert [chunk.sha256 for chunk in chunks[:-1]] == [""] * (len(chunks) - 1)
    return b"".join(chunk.data for chunk in chunks), chunks[-1].sha256


async def test_a_trainer_over_the_packaged_text_encoder_names_it_in_its_releases(suite, minilm) -> None:
    await suite.write([*suite.products(), *suite.visits(10)])
    async with suite.trainer(text_encoder="minilm") as stub:
        await suite.learned(stub)
        release = (await stub.ListReleases(trainer_pb2.ListReleasesRequest())).releases[0]
    assert {part.name for part in release.parts} == set(PARTS)


async def test_a_trainer_whose_text_encoder_is_not_there_does_not_start(suite, tmp_path) -> None:
    with pytest.raises(FailedPreconditionError, match="lacks config"):
        async with suite.trainer(text_encoder="minilm", text_folder=tmp_path / "nowhere"):
            pass


async def test_the_plan_is_sent_now_and_at_every_change(suite) -> None:
    await suite.write(suite.products())
    async with suite.trainer(publish_every_s=0.01) as stub:
        watch = stub.WatchServingPlan(trainer_pb2.WatchServingPlanRequest())
        plans = [await watch.read()]
        await suite.write(suite.visits(5))
        while not plans[-1].stable.release:
            plans.append(await watch.read())
        first = plans[-1]
        await suite.write(suite.visits(5))
        while plans[-1].stable.release == first.stable.release:
            plans.append(await watch.read())
        second = plans[-1]
        watch.cancel()
    # the same is sent again now and then
    assert [plan.sequence for plan in plans] == sorted(plan.sequence for plan in plans)
    assert any(plan.shadow.release == second.stable.release for plan in plans)
    assert first.valid_for_ms == 30_000
    assert first.sequence < second.sequence
    assert first.stable.log_offset <= second.stable.log_offset
    # of one lineage each follows the one before it; one between the two may have been overtaken at once
    assert number_of(second.stable.parent) == number_of(second.stable.release) - 1
    assert first.stable.release <= second.stable.parent


async def test_releases_are_listed_newest_first_in_pages(suite) -> None:
    async with suite.trainer(publish_every_s=0.01) as stub:

        async def has_three() -> bool:
            await suite.write(suite.visits(2))
            return len((await stub.ListReleases(trainer_pb2.ListReleasesRequest())).releases) >= 3

        await suite.until(has_three)
        first = await stub.ListReleases(trainer_pb2.ListReleasesRequest(page_size=2))
        second = await stub.ListReleases(trainer_pb2.ListReleasesRequest(page_size=2, page_token=first.next_page_token))
        names = [release.release for release in [*first.releases, *second.releases]]
        found = await stub.GetRelease(trainer_pb2.GetReleaseRequest(release=names[0]))
    assert names == sorted(names, reverse=True)
    assert len(set(names)) == len(names)
    assert found.release == first.releases[0]


async def test_old_releases_go_and_the_served_one_stays(suite) -> None:
    async with suite.trainer(publish_every_s=0.01, keep_releases=2) as stub:

        async def is_first_gone() -> bool:
            await suite.write(suite.visits(2))
            listed = (await stub.ListReleases(trainer_pb2.ListReleasesRequest())).releases
            return bool(listed) and listed[-1].release > "r-000001"

        await suite.until(is_first_gone)

        async def folders_are_those_listed() -> bool:
            listed = (await stub.ListReleases(trainer_pb2.ListReleasesRequest())).releases
            folders = (suite.common.data_dir / "artifacts" / "releases").iterdir()
            names = {release.release for release in listed}
            # what served before is kept as well: an undo goes back to it
            return await _served(stub) in names and {path.name for path in folders} == names

        await suite.until(folders_are_those_listed)


async def _served(stub) -> str:
    watch = stub.WatchServingPlan(trainer_pb2.WatchServingPlanRequest())
    plan = await watch.read()
    watch.cancel()
    return plan.stable.release


@pytest.mark.parametrize("name", ["r-000009", "r-9", "nonsense", ""])
async def test_an_unknown_release_is_not_found(suite, name: str) -> None:
    async with suite.trainer() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetRelease(trainer_pb2.GetReleaseRequest(release=name))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_an_unknown_part_is_not_found(suite) -> None:
    await suite.write(suite.visits(3))
    async with suite.trainer() as stub:
        await suite.learned(stub)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _fetched(stub, "r-000001", "secrets.txt")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_every_fault_of_a_page_is_told(suite) -> None:
    async with suite.trainer() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListReleases(trainer_pb2.ListReleasesRequest(page_size=-1, page_token="x"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "page_size" in str(caught.value.details())
    assert "page_token" in str(caught.value.details())


async def test_a_restart_goes_on_where_it_was(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    async with suite.trainer() as stub:
        before = await suite.learned(stub)
    async with suite.trainer() as stub:

        async def recovered():
            status = await stub.GetTrainingStatus(trainer_pb2.GetTrainingStatusRequest(with_digest=True))
            return status if status.offset == before.offset else None

        after = await suite.until(recovered)
        same = ("delta_sequence", "vectors_digest", "newest_release", "space", "slices", "examples")
        assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
        await suite.write(suite.visits(5))
        last = await suite.learned(stub)
    assert last.slices > before.slices


async def test_a_new_product_does_not_wait_for_its_slice(suite) -> None:
    # longer than any machine has been up, and yet the first slice is due at once
    async with suite.trainer(slice_every_s=1e9) as stub:
        await suite.write(suite.visits(2))
        await suite.learned(stub)
        await suite.write(suite.products(40))

        async def has_vectors() -> bool:
            return (await stub.GetTrainingStatus(trainer_pb2.GetTrainingStatusRequest(with_digest=True))).vectors == 40

        await suite.until(has_vectors)
        status = await stub.GetTrainingStatus(trainer_pb2.GetTrainingStatusRequest(with_digest=True))
        assert status.slices == 1
        await asyncio.sleep(0)
