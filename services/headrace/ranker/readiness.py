"""When a ranker that starts is to be sent calls: not before it can answer as the plan wants, if that is to be had.

A rolling restart would otherwise replace rankers that know items and a release by ones that know none yet.
"""

from __future__ import annotations

import asyncio
import logging

from headrace.ranker.catalogue import Catalogue
from headrace.ranker.releases import Releases

log = logging.getLogger(__name__)

_LOOK_S = 0.02


async def able_to_answer(releases: Releases, catalogue: Catalogue, wait_s: float) -> None:
    """Returns when there are items, and the release that the plan has for this track, if it has one.

    After `wait_s` in any case: a poor answer is better than none, and peers may be away for long.
    """
    try:
        async with asyncio.timeout(wait_s):
            while _missing(releases, catalogue):  # noqa: ASYNC110  # at the start only, and of two parts
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        log.warning("ready_without", extra={"waited_s": wait_s, "missing": _missing(releases, catalogue)})


def _missing(releases: Releases, catalogue: Catalogue) -> str:
    return releases.missing or ("" if catalogue.is_loaded else "items: none loaded")
