"""Which facts held for somebody at a moment, as they were known at an offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.feature_store.facts import Entity
from headrace.feature_store.fold import State
from headrace.runtime.errors import FailedPreconditionError, InvalidRequestError


@dataclass(frozen=True, slots=True)
class FactQuestion:
    """About one entity. None: at the log's time, as known with all that is folded. No store: of all of them."""

    entity: Entity
    store_id: str = ""
    time_us: int | None = None
    offset: int | None = None
    min_offset: int = 0


@dataclass(frozen=True, slots=True)
class HeldFacts:
    """Serialised DatedFacts, and the state that they are from."""

    documents: Sequence[bytes]
    offset: int
    now_us: int


def answered(state: State, question: FactQuestion) -> HeldFacts:
    """The facts that held. FailedPreconditionError when some of them may be forgotten."""
    facts = state.dated_facts
    time_us = state.now_us if question.time_us is None else question.time_us
    offset = state.offset if question.offset is None else question.offset
    if offset > state.offset:
        raise InvalidRequestError.of("as_of_offset", f"must be at most {state.offset}, which is folded, got {offset}")
    if time_us < facts.complete_from_us:
        raise FailedPreconditionError(f"time: facts that ended by {facts.complete_from_us} µs are gone, got {time_us}")
    if offset < facts.complete_from_offset:
        first = facts.complete_from_offset
        raise FailedPreconditionError(f"as_of_offset: what was corrected before {first} is gone, got {offset}")
    documents = facts.documents(question.entity, time_us, offset, question.store_id)
    return HeldFacts(documents, state.offset, state.now_us)
