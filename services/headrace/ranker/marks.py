"""What the metadata of a call says of arms: that another ranker asks, or that the caller has chosen the arm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.ranker.exposure import Exposure

_PREFIX = "headrace-"
_FORWARDED_TO = "headrace-forwarded-to"
_ROLLOUT = "headrace-rollout"
_ARM = "headrace-arm"
FORCE_ARM = "headrace-force-arm"
FORCE_ARM_KEY = "headrace-force-arm-key"


@dataclass(frozen=True, slots=True)
class Marks:
    """Empty where nothing is said. `rollout` and `arm` come with forwarded calls only."""

    forwarded_to: str = ""
    rollout: str = ""
    arm: str = ""
    forced_arm: str = ""
    force_key: str = ""

    @property
    def are_a_rankers(self) -> bool:
        """Whether they say what only another ranker may."""
        return bool(self.forwarded_to or self.rollout or self.arm)


UNMARKED = Marks()


def marks_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> Marks:
    """The marks of a call.

    >>> marks_of(forwarding("canary", Exposure("ro-000001", "canary")))
    Marks(forwarded_to='canary', rollout='ro-000001', arm='canary', forced_arm='', force_key='')
    """
    found = {key: str(value) for key, value in metadata or () if key.startswith(_PREFIX)}
    if not found:
        return UNMARKED
    return Marks(
        forwarded_to=found.get(_FORWARDED_TO, ""),
        rollout=found.get(_ROLLOUT, ""),
        arm=found.get(_ARM, ""),
        forced_arm=found.get(FORCE_ARM, ""),
        force_key=found.get(FORCE_ARM_KEY, ""),
    )


def forwarding(track: str, exposure: Exposure) -> tuple[tuple[str, str], ...]:
    """The metadata of a call that one ranker sends to the other track."""
    return (_FORWARDED_TO, track), (_ROLLOUT, exposure.rollout), (_ARM, exposure.arm)
