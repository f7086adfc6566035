"""What an SRE reads at a glance, and what a script reads from the exit status."""

from __future__ import annotations

import pytest
from rich.console import Console

from headrace.cli.rollout.screen import exit_status, phase_name, screen
from headrace.cli.rollout.steps import steps_bp
from headrace.runtime.errors import InvalidRequestError
from headrace.v1.trainer_pb2 import Comparison, GateVerdict, Rollout, RolloutKind, RolloutPhase


def shown(rollout: Rollout) -> str:
    console = Console(width=120, record=True, force_terminal=False)
    with console.capture() as captured:
        console.print(screen(rollout))
    return captured.get()


def in_canary() -> Rollout:
    rollout = Rollout(
        rollout="ro-000007",
        kind=RolloutKind.ROLLOUT_KIND_LINEAGE,
        phase=RolloutPhase.ROLLOUT_PHASE_CANARY,
        release="r-000042",
        baseline="r-000040",
        lineage="wide",
        share_bp=1_000,
        steps_bp=[100, 1_000, 5_000],
        reason="waits for 12,000 more people",
        gates=[GateVerdict(gate=1, passed=True, reason="no harm", numbers={"overlap_at_20": 0.91234})],
        comparisons=[
            Comparison(
                metric="clicks_per_user",
                stable=2.0,
                canary=1.9,
                difference=-0.05,
                lower=-0.12,
                upper=0.02,
                stable_count=36_000,
                canary_count=4_000,
                verdict="open",
            )
        ],
    )
    rollout.phase_time.GetCurrentTime()
    rollout.create_time.GetCurrentTime()
    return rollout


def test_the_first_line_says_which_rollout_stands_where() -> None:
    assert shown(in_canary()).splitlines()[0].startswith("ro-000007  CANARY  for 0 s")


def test_the_present_step_of_the_ramp_is_marked() -> None:
    assert "people: 1 % · [10 %] · 50 %" in shown(in_canary())


def test_gates_and_arms_are_shown_with_their_numbers() -> None:
    text = shown(in_canary())

    assert "no harm | overlap_at_20 0.9123" in text
    assert "-5.0%" in text
    assert "-12.0% … +2.0%" in text
    assert "36,000 / 4,000" in text


@pytest.mark.parametrize(
    ("phase", "status"),
    [
        (RolloutPhase.ROLLOUT_PHASE_PROMOTED, 0),
        (RolloutPhase.ROLLOUT_PHASE_CANARY, 0),
        (RolloutPhase.ROLLOUT_PHASE_ROLLED_BACK, 1),
        (RolloutPhase.ROLLOUT_PHASE_INCONCLUSIVE, 3),
    ],
)
def test_a_script_can_tell_how_it_ended(phase: RolloutPhase.ValueType, status: int) -> None:
    assert exit_status(Rollout(phase=phase)) == status


def test_a_phase_is_called_by_its_words() -> None:
    assert phase_name(RolloutPhase.ROLLOUT_PHASE_ROLLING_BACK) == "rolling back"


def test_steps_are_written_in_percent() -> None:
    assert steps_bp("0.5, 10,100") == [50, 1_000, 10_000]
    assert steps_bp("") == []


@pytest.mark.parametrize("text", ["0,10", "10,1", "5,5", "101", "a", "0.001", "1,,2", "nan"])
def test_steps_that_are_no_ramp_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="--steps"):
        steps_bp(text)
