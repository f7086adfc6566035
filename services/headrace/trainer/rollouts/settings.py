"""All that a deployment may change about rollouts."""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from headrace.runtime.settings import Given
from headrace.trainer.analysis.policy import CanaryPolicy, ShadowPolicy
from headrace.trainer.rollouts.evidence import RolloutPolicy


class RolloutSettings(Given):
    """How releases come to serve everybody, and what stops them."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_ROLLOUT_", frozen=True)

    look_every_s: float = Field(0.5, gt=0, description="seconds between two looks at what runs")
    lease_s: float = Field(5.0, gt=0, description="seconds after which another process decides when the first is gone")
    plan_every_s: float = Field(2.0, gt=0, description="seconds after which the serving plan is sent once more")
    plan_valid_s: float = Field(30.0, gt=0, description="seconds after which rankers that hear nothing use no canary")
    report_valid_s: float = Field(5.0, gt=0, description="seconds after its last report that a ranker counts as gone")

    increment_gate_one: bool = Field(
        True, description="hold increments against what serves before they do; false: gate 0 is enough, for trials"
    )
    gate_pairs: int = Field(50, ge=1, description="live requests that gate 1 needs scored by both releases")
    gate_wait_s: float = Field(300.0, gt=0, description="seconds after which gate 1 without enough is inconclusive")
    one_kind_s: float = Field(
        5.0, ge=0, description="seconds after which live requests alone, or logged lists alone, pass an increment"
    )
    quiet_s: float = Field(
        0.0,
        ge=0,
        description="seconds after which an increment passes gate 1 that too few requests came about, for trials; "
        "0: never",
    )
    unserved_s: float = Field(
        5.0, gt=0, description="seconds without any ranker after which an increment passes on gate 0 alone"
    )
    supersede_after_s: float = Field(
        5.0, ge=0, description="seconds after which a newer increment replaces one that nothing is known of"
    )
    promote_wait_s: float = Field(30.0, gt=0, description="seconds that rankers get to take a release, or to leave it")
    increment_soak_s: float = Field(5.0, ge=0, description="seconds that a promoted increment is watched")
    lineage_soak_s: float = Field(600.0, ge=0, description="seconds that a promoted lineage is watched")
    steps_bp: str = Field("100,1000", description="shares of 10,000 people that a lineage's canary answers")

    step_hours: float = Field(1.0, ge=0, description="hours that a step of a canary takes at least")
    step_limit_hours: float = Field(24.0 * 21, gt=0, description="hours after which a step is inconclusive")
    margin: float = Field(0.05, gt=0, lt=1, description="relative loss of clicks that a promotion must rule out")

    outcome_records: int = Field(
        2_000_000, ge=0, description="records of the log that are folded at a start to know what people did"
    )
    history_days: float = Field(
        30.0, gt=0, description="days that increments' history is kept; a lineage's is for ever"
    )
    webhook_urls: str = Field("", repr=False, description="who is told of each transition by POST; commas between")
    verdict_port: int = Field(0, ge=0, le=65535, description="HTTP port of verdicts, for Argo or Flagger; 0: none")
    verdict_host: str = Field("127.0.0.1", description="address that verdicts are served at")
    deployments: str = Field("", description="ranker Deployments that must be settled for a rollout to begin")
    mirror: bool = Field(False, description="show lineages' rollouts as ModelRollout objects of the cluster")
    mirror_every_s: float = Field(2.0, gt=0, description="seconds between two looks at what to show")
    namespace: str = Field("", description="of Deployments and ModelRollouts; empty: the pod's own")

    @field_validator("steps_bp")
    @classmethod
    def _is_a_ramp(cls, steps: str) -> str:
        ramp_of(steps)
        return steps

    @field_validator("webhook_urls")
    @classmethod
    def _are_http(cls, urls: str) -> str:
        for url in _parts(urls):
            if not url.startswith(("http://", "https://")):
                raise ValueError("must be http:// or https:// addresses")
        return urls

    @property
    def ramp(self) -> tuple[int, ...]:
        return ramp_of(self.steps_bp)

    @property
    def webhooks(self) -> tuple[str, ...]:
        return _parts(self.webhook_urls)

    @property
    def deployment_names(self) -> tuple[str, ...]:
        return _parts(self.deployments)

    def policy(self) -> RolloutPolicy:
        shadow = ShadowPolicy(least_pairs=self.gate_pairs, most_seconds=self.gate_wait_s)
        margins = (*CanaryPolicy().margins[:-1], self.margin)
        canary = CanaryPolicy(margins=margins, least_hours=self.step_hours, most_hours=self.step_limit_hours)
        return RolloutPolicy(
            shadow,
            canary,
            self.increment_gate_one,
            self.one_kind_s,
            self.unserved_s,
            self.supersede_after_s,
            self.promote_wait_s,
            self.increment_soak_s,
            self.lineage_soak_s,
            self.quiet_s,
        )


def ramp_of(steps: str) -> tuple[int, ...]:
    """`100,1000` → (100, 1000). ValueError: not growing, or not 1..10,000.

    >>> ramp_of("100,1000")
    (100, 1000)
    """
    ramp = tuple(int(step) for step in _parts(steps))
    if not ramp or any(not 1 <= step <= 10_000 for step in ramp) or list(ramp) != sorted(set(ramp)):
        raise ValueError("must be growing shares of 10,000, such as 100,1000")
    return ramp


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
