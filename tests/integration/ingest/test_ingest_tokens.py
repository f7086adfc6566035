"""Attribution tokens at a real door: who may earn credit, and that the event is taken whoever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headrace.model.attribution import Tokens
from headrace.runtime.privacy import open_privacy
from headrace.v1 import ingest_pb2 as pb
from headrace.v1.common_pb2 import UserEvent

Event = Callable[..., UserEvent]
SHOWN_US = 1_500_000_000_000_000


@pytest.fixture
def new_token(backend: Any) -> Callable[[str], str]:
    """A token as the ranker gives it out to somebody."""
    tokens = Tokens(open_privacy(backend.common).derived("attribution tokens"))
    return lambda user_key: tokens.new(release="r-000001", user_key=user_key, time_us=SHOWN_US)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_forged_foreign_and_replayed_tokens_earn_nothing_and_their_events_are_kept(
    open_door: Any, event: Event, new_token: Callable[[str], str]
) -> None:
    good, foreign = new_token("v:v"), new_token("v:somebody-else")
    brought = {
        "": event(1, event_id="first", attribution_token=good),
        "repeated": event(20, event_id="replayed", attribution_token=good),
        "foreign": event(40, event_id="stolen", attribution_token=foreign),
        "forged": event(60, event_id="invented", attribution_token=good[:-6] + "AAAAAA"),
        "early": event(-90, event_id="before", attribution_token=new_token("v:v")),
        "late": event(31 * 86_400, event_id="after", attribution_token=new_token("v:v")),
    }
    async with open_door() as door:
        results = await door.write(*brought.values())
        assert {result.outcome for result in results} == {pb.WriteResult.OUTCOME_ACCEPTED}
        assert [result.token_fault for result in results] == list(brought)
        logged = {one.event.event_id: one.event.attribution_token for one in await door.logged()}
        assert {event_id for event_id, token in logged.items() if token} == {"first"}
        # the very same event again is a duplicate, not a replay
        again = await door.write(event(1, event_id="first", attribution_token=good))
        assert (again[0].outcome, again[0].token_fault) == (pb.WriteResult.OUTCOME_DUPLICATE, "")
    async with open_door() as door:
        after_restart = await door.write(event(80, event_id="replayed later", attribution_token=good))
        assert after_restart[0].token_fault == "repeated"
