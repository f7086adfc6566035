"""The phases of a rollout, and which may follow which."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where a rollout stands."""

    VALIDATING = "validating"
    SHADOWING = "shadowing"
    CANARY = "canary"
    PROMOTING = "promoting"
    SOAKING = "soaking"
    PROMOTED = "promoted"
    PAUSED = "paused"
    INCONCLUSIVE = "inconclusive"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"
    SUPERSEDED = "superseded"


# a rollout in one of these is over; only an undo moves a promoted one again
TERMINAL = (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.SUPERSEDED)
# its release serves everybody
PROMOTION = (Phase.PROMOTING, Phase.SOAKING)
# time passes and evidence counts
RUNNING = (Phase.VALIDATING, Phase.SHADOWING, Phase.CANARY, *PROMOTION)

_STOPS = {Phase.PAUSED, Phase.ROLLING_BACK}
_UNPROMOTED_STOPS = _STOPS | {Phase.INCONCLUSIVE, Phase.SUPERSEDED}

_NEXT: dict[Phase, set[Phase]] = {
    # straight to promotion: the first release of all, which nothing can be held against
    Phase.VALIDATING: {Phase.SHADOWING, Phase.PROMOTING} | _UNPROMOTED_STOPS,
    Phase.SHADOWING: {Phase.CANARY, Phase.PROMOTING} | _UNPROMOTED_STOPS,
    # to itself: the next step, or the next release of its lineage
    Phase.CANARY: {Phase.CANARY, Phase.PROMOTING} | _UNPROMOTED_STOPS,
    Phase.PROMOTING: {Phase.SOAKING} | _STOPS,
    Phase.SOAKING: {Phase.PROMOTED} | _STOPS,
    Phase.PROMOTED: {Phase.ROLLING_BACK},
    Phase.PAUSED: {*RUNNING, Phase.ROLLING_BACK, Phase.SUPERSEDED},
    Phase.INCONCLUSIVE: {Phase.SHADOWING, Phase.CANARY, Phase.PROMOTING, Phase.ROLLING_BACK, Phase.SUPERSEDED},
    Phase.ROLLING_BACK: {Phase.ROLLED_BACK},
    Phase.ROLLED_BACK: set(),
    Phase.SUPERSEDED: set(),
}


def may_follow(phase: Phase, after: Phase) -> bool:
    """Whether a rollout may go from `after` to `phase`.

    >>> may_follow(Phase.CANARY, Phase.SHADOWING), may_follow(Phase.SHADOWING, Phase.PROMOTED)
    (True, False)
    """
    return phase in _NEXT[after]
