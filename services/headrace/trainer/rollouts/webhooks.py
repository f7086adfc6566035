"""Tells others of each transition by HTTP: at least once, in order, after a restart too, and never in anybody's way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import urllib.request
from collections.abc import Callable, Sequence

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from headrace.trainer.rollouts.rollout import Transition, rollout_name
from headrace.trainer.rollouts.storage import Rollouts
from headrace.trainer.tables import TransitionRow, WebhookRow

log = logging.getLogger(__name__)

_TIMEOUT_S = 5.0
_LOOK_S, _MOST_S = 1.0, 60.0
_AT_ONCE = 50


class Webhooks:
    """Posts to every URL by itself; one that does not answer is tried again, less and less often."""

    def __init__(self, engine: Engine, rollouts: Rollouts, urls: Sequence[str], decides: Callable[[], bool]) -> None:
        self._engine = engine
        self._rollouts = rollouts
        self._urls = urls
        self._decides = decides

    def begin(self) -> None:
        """Notes URLs that are new: they hear of what comes from now on."""
        for url in self._urls:
            self._told(url)

    async def run(self) -> None:
        """Tells for ever, while this process is the one that decides."""
        async with asyncio.TaskGroup() as group:
            for url in self._urls:
                group.create_task(self._tell(url))

    async def _tell(self, url: str) -> None:
        pause_s = _LOOK_S
        while True:
            try:
                if self._decides():
                    await asyncio.to_thread(self._tell_news, url)
                pause_s = _LOOK_S
            except (OSError, OperationalError) as error:
                # a URL may hold a secret
                log.warning("webhook_failed", extra={"webhook": _digest(url)[:8], "reason": str(error)})
                pause_s = min(_MOST_S, pause_s * 2)
            await asyncio.sleep(pause_s)

    def _tell_news(self, url: str) -> None:
        while news := self._rollouts.history(_AT_ONCE, self._told(url)):
            for transition in news:
                _post(url, transition)
                self._note(url, transition.number)

    def _told(self, url: str) -> int:
        with Session(self._engine) as session, session.begin():
            row = session.get(WebhookRow, _digest(url))
            if row is None:
                row = WebhookRow(url=_digest(url), number=session.scalar(select(func.max(TransitionRow.number))) or 0)
                session.add(row)
            return row.number

    def _note(self, url: str, number: int) -> None:
        with Session(self._engine) as session, session.begin():
            session.merge(WebhookRow(url=_digest(url), number=number))


def news_of(transition: Transition) -> dict[str, object]:
    """What is posted; the evidence is for whoever asks for the history."""
    return {
        "number": transition.number,
        "rollout": rollout_name(transition.rollout),
        "from": transition.from_phase.value if transition.from_phase else "",
        "to": transition.to_phase.value,
        "actor": transition.actor,
        "reason": transition.reason,
        "time_us": transition.time_us,
    }


def _post(url: str, transition: Transition) -> None:
    body = json.dumps(news_of(transition)).encode()
    # the settings take http and https only
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
        return


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()
