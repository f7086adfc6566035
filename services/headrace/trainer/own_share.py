"""What one lineage's own lists led to: all that it learns from where training is not mirrored.

With mirrored training every lineage learns from everything, whichever arm it comes from, so that arms differ by
their configuration alone. Without it the arm of few people learns from few people: this is there to compare.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

import numpy as np

from headrace.model.attribution import Tokens
from headrace.trainer.records import Events, Slice


class OwnShare:
    """Leaves out of slices what the releases of other lineages led to; `own` names this lineage's releases.

    An event without a token, or with one that this suite did not sign, answers no list and is everybody's.
    """

    def __init__(self, tokens: Tokens, own: Container[str]) -> None:
        self._tokens = tokens
        self._own = own

    def of(self, records: Slice) -> Slice:
        """The slice without the lists of others and the events that answer them."""
        shown = tuple(shown for shown in records.impressions if shown.release in self._own)
        return replace(records, impressions=shown, events=self._own_events(records.events))

    def _own_events(self, events: Events) -> Events:
        foreign = self._foreign(sorted(set(events.tokens) - {""}))
        if not foreign:
            return events
        return events.at(np.flatnonzero([token not in foreign for token in events.tokens]))

    def _foreign(self, tokens: Sequence[str]) -> set[str]:
        releases = {token: self._release(token) for token in tokens}
        return {token for token, release in releases.items() if release and release not in self._own}

    def _release(self, token: str) -> str:
        try:
            return self._tokens.facts(token).release
        except ValueError:
            return ""
