"""From evidence to a decision, by rules without a clock, a database or a network: the same again whenever replayed."""

from __future__ import annotations

from dataclasses import replace

from headrace.trainer.analysis.evidence import CanaryVerdict, ShadowEvidence
from headrace.trainer.analysis.gate_one import is_enough_alone, shadow_verdict, wants_vouching
from headrace.trainer.analysis.policy import ShadowPolicy
from headrace.trainer.analysis.verdict import canary_verdict, guardrail_verdict
from headrace.trainer.rollouts.commands import commanded
from headrace.trainer.rollouts.evidence import (
    LINEAGE,
    Decision,
    GateFinding,
    RankersSeen,
    Record,
    RolloutEvidence,
    RolloutPolicy,
)
from headrace.trainer.rollouts.findings import move, stay
from headrace.trainer.rollouts.phases import PROMOTION, Phase


def decide(evidence: RolloutEvidence, policy: RolloutPolicy) -> Decision:
    """What happens to the rollout now. FailedPreconditionError: its phase does not allow what somebody asked for."""
    if evidence.command is not None:
        return commanded(evidence, evidence.command)
    match evidence.phase:
        case Phase.VALIDATING:
            return _validating(evidence)
        case Phase.SHADOWING:
            return _shadowing(evidence, policy)
        case Phase.CANARY:
            return _canary(evidence, policy)
        case Phase.PROMOTING:
            return _promoting(evidence, policy)
        case Phase.SOAKING:
            return _soaking(evidence, policy)
        case Phase.PAUSED:
            return _paused(evidence, policy)
        case Phase.INCONCLUSIVE:
            return _inconclusive(evidence)
        case Phase.ROLLING_BACK:
            return _rolling_back(evidence, policy)
        case _:
            return stay(evidence, "it is over")


def replay(text: str) -> bool:
    """Whether the evidence of a transition leads to the decision that was taken, every bit of it.

    CorruptDataError: the text is no evidence. FailedPreconditionError: the decision would be refused today.
    """
    record = Record.read(text)
    again = Record(record.evidence, record.policy, decide(record.evidence, record.policy))
    return again.written() == record.written()


def _validating(evidence: RolloutEvidence) -> Decision:
    if evidence.fault is None:
        return stay(evidence, "its parts are being read")
    if evidence.fault:
        return _back(evidence, _gate(evidence, 0, False, evidence.fault))
    passed = _gate(evidence, 0, True, "all parts are there, unchanged, finite and give their golden answers")
    if evidence.newer and evidence.kind != LINEAGE:
        return move(evidence, Phase.SUPERSEDED, f"{evidence.newer} came after it", passed)
    if not evidence.baseline:
        return move(evidence, Phase.PROMOTING, "the first release: there is nothing to hold it against", passed)
    return move(evidence, Phase.SHADOWING, "gate 0 passed in the registry; rankers score with it beside", passed)


def _shadowing(evidence: RolloutEvidence, policy: RolloutPolicy) -> Decision:
    if evidence.rankers.refusals:
        return _refused(evidence)
    if evidence.kind != LINEAGE and not policy.increment_gate_one:
        return _past_gate_one(evidence, policy, "not asked for", _gate(evidence, 1, True, "not asked for"))
    if evidence.shadow is None:
        if evidence.elapsed_s >= policy.shadow.most_seconds:
            return move(evidence, Phase.INCONCLUSIVE, "nothing was ever known of how it scores")
        return stay(evidence, "nothing is known yet of how it scores")
    is_unvouched = wants_vouching(evidence.shadow, policy.shadow)
    verdict = shadow_verdict(evidence.shadow, _limits(evidence, evidence.shadow, policy, is_unvouched))
    found = _gate(evidence, 1, verdict.decision == "pass", verdict.reason, verdict.numbers)
    if verdict.decision == "stop":
        return _back(evidence, found)
    if verdict.decision == "pass" and evidence.rankers.stable and not _is_held(evidence.rankers, evidence.shadow):
        return _unheld(evidence, policy)
    if verdict.decision == "pass":
        return _past_gate_one(evidence, policy, verdict.reason, found)
    if verdict.decision == "go on" and is_unvouched:
        return stay(evidence, verdict.reason)
    if _is_unserved(evidence, policy) and not _has_logged(evidence.shadow, policy.shadow):
        reason = "no ranker answers anybody and too little is logged to score with: gate 0 is all there is"
        return _past_gate_one(evidence, policy, reason, _gate(evidence, 1, True, reason))
    if _is_quiet(evidence, policy):
        reason = f"no harm in the little that there is after {policy.quiet_s:g} s: {verdict.reason}"
        return _past_gate_one(evidence, policy, reason, _gate(evidence, 1, True, reason, verdict.numbers))
    if verdict.decision == "inconclusive":
        return move(evidence, Phase.INCONCLUSIVE, verdict.reason, found)
    if _may_be_superseded(evidence, policy):
        return move(evidence, Phase.SUPERSEDED, f"{evidence.newer} came before anything was known of it")
    return stay(evidence, verdict.reason)


def _is_held(seen: RankersSeen, shadow: ShadowEvidence) -> bool:
    """Whether a ranker could load it, as opposed to waiting for vectors that nobody may ever send."""
    return bool(seen.with_shadow or shadow.live.pairs)


def _unheld(evidence: RolloutEvidence, policy: RolloutPolicy) -> Decision:
    """What no ranker can hold may not serve, however well its weights do on what is logged."""
    if evidence.elapsed_s < policy.promote_wait_s:
        return stay(evidence, "no ranker holds it yet")
    reason = f"none of {evidence.rankers.stable} rankers could hold it in {policy.promote_wait_s:g} s"
    return _back(evidence, _gate(evidence, 0, False, reason))


def _limits(
    evidence: RolloutEvidence, shadow: ShadowEvidence, policy: RolloutPolicy, is_unvouched: bool
) -> ShadowPolicy:
    """An increment that one kind of evidence is enough of waits only a little for the other kind: it is to be fresh.

    So does whatever is to be stopped unless the other kind vouches for it.
    """
    limits = policy.shadow
    is_enough = is_enough_alone(shadow, limits) or _has_logged(shadow, limits)
    if (evidence.kind != LINEAGE and is_enough) or is_unvouched:
        return replace(limits, most_seconds=min(policy.one_kind_s, limits.most_seconds))
    return limits


def _has_logged(shadow: ShadowEvidence, limits: ShadowPolicy) -> bool:
    return shadow.logged is not None and shadow.logged.people >= limits.least_people


def _past_gate_one(evidence: RolloutEvidence, policy: RolloutPolicy, reason: str, found: GateFinding) -> Decision:
    if evidence.kind == LINEAGE:
        if (waiting := _canary_track_waits(evidence, policy, found)) is not None:
            return waiting
        return move(evidence, Phase.CANARY, f"gate 1 passed: {reason}", found)
    return move(evidence, Phase.PROMOTING, f"gate 1 passed: {reason}", found)


def _canary_track_waits(evidence: RolloutEvidence, policy: RolloutPolicy, found: GateFinding) -> Decision | None:
    """Nobody is given to a canary track that doesn't hold the release yet: all of them would be fallbacks."""
    seen = evidence.rankers
    if seen.on_track and seen.with_release == seen.on_track:
        return None
    reason = f"gate 1 passed; {seen.with_release} of {seen.on_track} rankers of the canary track hold it"
    if evidence.elapsed_s >= policy.shadow.most_seconds + policy.promote_wait_s:
        return move(evidence, Phase.INCONCLUSIVE, reason, found)
    return stay(evidence, reason)


def _is_unserved(evidence: RolloutEvidence, policy: RolloutPolicy) -> bool:
    """Nobody is answered, so nobody can be hurt: no ranker was heard of for long enough."""
    seen = evidence.rankers
    waited_s = min(evidence.elapsed_s, seen.listened_s)
    return evidence.kind != LINEAGE and seen.stable == 0 and waited_s >= policy.unserved_s


def _is_quiet(evidence: RolloutEvidence, policy: RolloutPolicy) -> bool:
    """Too few ask for lists, and whoever runs a trial would rather be fresh than wait for them."""
    return evidence.kind != LINEAGE and 0 < policy.quiet_s <= evidence.elapsed_s


def _may_be_superseded(evidence: RolloutEvidence, policy: RolloutPolicy) -> bool:
    """A newer release waits for one that evidence is coming in about: else none would ever pass."""
    shadow = evidence.shadow
    is_known = shadow is not None and (shadow.live.pairs > 0 or _has_logged(shadow, policy.shadow))
    waited = evidence.elapsed_s >= policy.supersede_after_s
    return bool(evidence.newer) and evidence.kind != LINEAGE and waited and not is_known


def _canary(evidence: RolloutEvidence, policy: RolloutPolicy) -> Decision:
    if evidence.rankers.refusals:
        return _refused(evidence)
    if evidence.canary is None:
        if evidence.elapsed_s > policy.canary.most_hours * 3600:
            return move(evidence, Phase.INCONCLUSIVE, "what people did was never known")
        return stay(evidence, "what people do is not known yet")
    verdict = canary_verdict(evidence.canary, policy.canary)
    found = _gate_two(evidence, verdict)
    match verdict.decision:
        case "roll back":
            return _back(evidence, found, verdict)
        case "inconclusive":
            return move(evidence, Phase.INCONCLUSIVE, verdict.reason, found, verdict.differences)
        case "promote":
            return move(evidence, Phase.PROMOTING, verdict.reason, found, verdict.differences)
        case "advance":
            step = evidence.step + 1
            return move(evidence, Phase.CANARY, verdict.reason, found, verdict.differences, step=step)
        case _:
            return stay(evidence, verdict.reason, verdict.differences)


def _promoting(evidence: RolloutEvidence, policy: RolloutPolicy) -> Decision:
    seen = evidence.rankers
    if seen.refusals and (evidence.baseline or not seen.with_release):
        return _refused(evidence)
    is_late = evidence.elapsed_s >= policy.promote_wait_s
    if is_late and evidence.baseline and seen.on_track and not seen.with_release:
        reason = f"none of {seen.on_track} rankers took it in {policy.promote_wait_s:g} s"
        return _back(evidence, _gate(evidence, 0, False, reason))
    if seen.with_release == seen.on_track or is_late:
        return move(evidence, Phase.SOAKING, f"{seen.with_release} of {seen.on_track} rankers answer with it")
    return stay(evidence, f"{seen.with_release} of {seen.on_track} rankers answer with it")


def _soaking(evidence: RolloutEvidence, policy: RolloutPolicy) -> Decision:
    seen = evidence.rankers
    if seen.refusals and (evidence.baseline or not seen.with_release):
        return _refused(evidence)
    fired = _fired(evidence, policy)
    if fired is not None and evidence.baseline:
        return fired
    soak_s = policy.lineage_soak_s if evidence.kind == LINEAGE else policy.increment_soak_s
    if evidence.elapsed_s >= soak_s or seen.on_track == 0:
        return move(evidence, Phase.PROMOTED, "no guardrail fired while it soaked" if seen.on_track else "nobody asks")
    return stay(evidence, "watched for a while")


def _paused(evidence: RolloutEvidence, policy: RolloutPolicy) -> Decision:
    """Guardrails act here too: people are answered by what is paused."""
    if evidence.rankers.refusals and (evidence.baseline or not evidence.rankers.with_release):
        return _refused(evidence)
    if (fired := _fired(evidence, policy)) is not None:
        return fired
    return stay(evidence, "paused")


def _inconclusive(evidence: RolloutEvidence) -> Decision:
    if evidence.newer and evidence.kind != LINEAGE:
        return move(evidence, Phase.SUPERSEDED, f"{evidence.newer} came after it")
    return stay(evidence, "nothing more is known")


def _rolling_back(evidence: RolloutEvidence, policy: RolloutPolicy) -> Decision:
    seen = evidence.rankers
    if seen.with_release and evidence.elapsed_s < policy.promote_wait_s:
        return stay(evidence, f"{seen.with_release} rankers still answer with it")
    # what people want to know of it for ever after is why, not that nobody has it any more
    return move(evidence, Phase.ROLLED_BACK, evidence.reason)


def _fired(evidence: RolloutEvidence, policy: RolloutPolicy) -> Decision | None:
    """The way back when a guardrail fired for the people whom the release answers."""
    is_promoted = evidence.phase in PROMOTION or evidence.resumes_in in PROMOTION
    counted = evidence.soak if is_promoted else evidence.canary
    if counted is None:
        return None
    verdict = guardrail_verdict(counted, policy.canary)
    if verdict.decision != "roll back":
        return None
    return _back(evidence, _gate_two(evidence, verdict), verdict)


def _refused(evidence: RolloutEvidence) -> Decision:
    refusals = evidence.rankers.refusals
    first = refusals[0]
    more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    return _back(evidence, _gate(evidence, 0, False, f"{first.ranker}{more}: {first.reason}"))


def _back(evidence: RolloutEvidence, found: GateFinding, verdict: CanaryVerdict | None = None) -> Decision:
    differences = verdict.differences if verdict else ()
    return move(evidence, Phase.ROLLING_BACK, f"gate {found.gate} failed: {found.reason}", found, differences)


def _gate(
    evidence: RolloutEvidence, gate: int, passed: bool, reason: str, numbers: tuple[tuple[str, float], ...] = ()
) -> GateFinding:
    return GateFinding(gate, passed, reason, numbers, evidence.now_us)


def _gate_two(evidence: RolloutEvidence, verdict: CanaryVerdict) -> GateFinding:
    numbers = tuple((each.metric, each.difference) for each in verdict.differences)
    return _gate(evidence, 2, verdict.decision in ("advance", "promote"), verdict.reason, numbers)
