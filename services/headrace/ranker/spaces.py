"""The vectors of every space that a held release needs, each followed for as long as one needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from headrace.ranker.feeds import VectorFeed


class Spaces:
    """Feeds by space, as tasks of `group`: one that dies takes the group with it."""

    def __init__(self, open_feed: Callable[[str], VectorFeed], group: asyncio.TaskGroup) -> None:
        self._open_feed = open_feed
        self._group = group
        self._feeds: dict[str, tuple[VectorFeed, asyncio.Task[None]]] = {}

    def feed(self, space: str) -> VectorFeed:
        """The space's feed, opened if need be."""
        if space not in self._feeds:
            feed = self._open_feed(space)
            self._feeds[space] = feed, self._group.create_task(feed.run())
        return self._feeds[space][0]

    def keep_only(self, spaces: Collection[str]) -> None:
        for other in [name for name in self._feeds if name not in spaces]:
            self._feeds.pop(other)[1].cancel()
