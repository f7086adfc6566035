"""Shows rollouts in the cluster as objects, for people who live in kubectl. The registry stays the truth."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, cast

import httpx2
from lightkube import ApiError, AsyncClient
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.events_v1 import Event

from headrace.trainer.rollouts.model_rollouts import GROUP, KIND, PLURAL, VERSION, event_of, model_rollout, status_of
from headrace.v1.trainer_pb2 import Rollout, RolloutTransition

log = logging.getLogger(__name__)

_FIELD_MANAGER = "headrace-registry"
_ModelRollout: Any = create_namespaced_resource(GROUP, VERSION, KIND, PLURAL)

Told = Sequence[tuple[Rollout, Sequence[RolloutTransition]]]


class Mirror:
    """Applies what `told` gives (rollouts, newest first, each with its transitions) whenever it differs from before.

    Objects that somebody changed or deleted are written again when their rollout moves, or at the next start. A
    cluster that cannot be reached or refuses is tried again at every look, and said once.
    """

    def __init__(
        self, client: AsyncClient, namespace: str, told: Callable[[], Awaitable[Told]], *, every_s: float
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._told = told
        self._every_s = every_s
        self._shown: dict[str, bytes] = {}
        self._events: set[int] = set()
        self._fault = ""

    async def run(self) -> None:
        """Looks for ever."""
        while True:
            try:
                await self.show(await self._told())
                self._note_fault("")
            except ApiError as error:
                self._note_fault(f"{error.status.code}: {error.status.message}")
            except httpx2.HTTPError as error:
                self._note_fault(f"{type(error).__name__}: {error}")
            await asyncio.sleep(self._every_s)

    async def show(self, told: Told) -> None:
        """Brings the objects to what is told. ApiError: the cluster refuses; httpx2.HTTPError: it is away."""
        # oldest first: events come in the order in which things happened
        for rollout, transitions in reversed(told):
            await self._show_rollout(rollout)
            for transition in transitions:
                await self._show_event(transition)

    async def _show_rollout(self, rollout: Rollout) -> None:
        form = rollout.SerializeToString(deterministic=True)
        if self._shown.get(rollout.rollout) == form:
            return
        described = model_rollout(rollout, self._namespace)
        await self._client.apply(_ModelRollout(described), field_manager=_FIELD_MANAGER, force=True)
        # the status is a part of its own: whoever may write the object need not be the one who may write that
        del described["spec"]
        status = _ModelRollout.Status(described | {"status": status_of(rollout)})
        await self._client.apply(status, field_manager=_FIELD_MANAGER, force=True)
        self._shown[rollout.rollout] = form

    async def _show_event(self, transition: RolloutTransition) -> None:
        if transition.number in self._events:
            return
        event = cast(Event, Event.from_dict(event_of(transition, self._namespace), lazy=False))
        try:
            await self._client.create(event)
        except ApiError as error:
            # another process of the registry, or this one before it was started again, has told it
            if error.status.code != HTTPStatus.CONFLICT:
                raise
        self._events.add(transition.number)

    def _note_fault(self, fault: str) -> None:
        if fault != self._fault:
            log.warning("mirror_failed", extra={"reason": fault}) if fault else log.info("mirror_found")
        self._fault = fault
