"""What an answer counts as: the rollout and the arm of the person, and the track that makes it."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.model.arms import CANARY, STABLE


@dataclass(frozen=True, slots=True)
class Exposure:
    """Goes into token and impression. `rollout` and `arm` are empty outside a rollout, and where the arm was forced.

    The answer to a `forwarded` call goes to the stable ranker, which logs the impression if it is shown.
    """

    rollout: str = ""
    arm: str = ""
    track: str = STABLE
    is_forwarded: bool = False


# what most answers are
OUTSIDE = Exposure()
CANARY_OUTSIDE = Exposure(track=CANARY)
