"""What a rollout is decided from and what was decided: frozen, and the same again when read back from its JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from headrace.runtime.stored_json import parsed
from headrace.trainer.analysis.evidence import CanaryEvidence, Difference, ShadowEvidence
from headrace.trainer.analysis.policy import CanaryPolicy, ShadowPolicy
from headrace.trainer.rollouts.phases import Phase

# grows when the rules of decisions.py change, so that nobody replays by other rules
RULES = 4

INCREMENT, LINEAGE = "increment", "lineage"


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """Every number that the rules of decisions.py use."""

    shadow: ShadowPolicy
    canary: CanaryPolicy
    increment_gate_one: bool
    one_kind_s: float
    unserved_s: float
    supersede_after_s: float
    promote_wait_s: float
    increment_soak_s: float
    lineage_soak_s: float
    quiet_s: float = 0.0
    rules: int = RULES


@dataclass(frozen=True, slots=True)
class Refusal:
    """A ranker that will not serve the release, and why."""

    ranker: str
    reason: str


@dataclass(frozen=True, slots=True)
class RankersSeen:
    """What the rankers last said: those of the track that matters, and how many of them answer with the release.

    `with_shadow`: stable ones that hold it beside what serves.
    `listened_s`: for how long reports have been listened to; silence tells nothing before.
    """

    stable: int = 0
    on_track: int = 0
    with_release: int = 0
    refusals: tuple[Refusal, ...] = ()
    listened_s: float = 0.0
    with_shadow: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody asked for: create, promote, abort, pause, resume, undo or supersede. `target` is of an undo."""

    name: str
    actor: str
    reason: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class RolloutEvidence:
    """Everything that one decision about one rollout is made from."""

    now_us: int
    phase: Phase
    phase_time_us: int
    resumes_in: Phase | None
    kind: str
    track: str
    release: str
    # empty: nothing served before, so that there is nothing to hold it against
    baseline: str
    step: int
    steps_bp: tuple[int, ...]
    rankers: RankersSeen
    # why it is in this phase
    reason: str = ""
    # a release of the lineage that came after it
    newer: str = ""
    # None: its parts are not looked at yet; empty: they are sound
    fault: str | None = None
    shadow: ShadowEvidence | None = None
    canary: CanaryEvidence | None = None
    # stable: answers before the promotion; canary: since
    soak: CanaryEvidence | None = None
    command: Command | None = None

    @property
    def elapsed_s(self) -> float:
        return (self.now_us - self.phase_time_us) / 1e6


@dataclass(frozen=True, slots=True)
class GateFinding:
    """What a gate found."""

    gate: int
    passed: bool
    reason: str
    numbers: tuple[tuple[str, float], ...]
    time_us: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Where the rollout goes; to the phase that it is in with `moves` unset: nothing happens."""

    to_phase: Phase
    moves: bool
    reason: str
    step: int
    resumes_in: Phase | None = None
    gates: tuple[GateFinding, ...] = ()
    comparisons: tuple[Difference, ...] = ()
    # of an undo: the release to go back to, where it is not the baseline
    target: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One decision with all that it was made from: what a transition keeps."""

    evidence: RolloutEvidence
    policy: RolloutPolicy
    decision: Decision

    def written(self) -> str:
        """Canonical JSON: equal records give equal texts. ValueError: a number in it is not finite."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def read(cls, text: str) -> Record:
        """CorruptDataError: the text is none."""
        return parsed(cls, text.encode(), "the evidence of a transition")
