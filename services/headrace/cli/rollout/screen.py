"""A rollout on a terminal: the phase and why first, then the ramp, the gates, and the arms side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headrace.cli.output import as_dict, print_json, print_table
from headrace.v1.trainer_pb2 import (
    Comparison,
    GateVerdict,
    GetRolloutHistoryResponse,
    ListRolloutsResponse,
    Rollout,
    RolloutKind,
    RolloutPhase,
    RolloutTransition,
)

_LOOK_S = 1.0
_GOOD, _BAD, _WAITING = "green", "red", "yellow"
_COLOURS = {
    RolloutPhase.ROLLOUT_PHASE_PROMOTED: _GOOD,
    RolloutPhase.ROLLOUT_PHASE_ROLLING_BACK: _BAD,
    RolloutPhase.ROLLOUT_PHASE_ROLLED_BACK: _BAD,
    RolloutPhase.ROLLOUT_PHASE_PAUSED: _WAITING,
    RolloutPhase.ROLLOUT_PHASE_INCONCLUSIVE: _WAITING,
    RolloutPhase.ROLLOUT_PHASE_SUPERSEDED: _WAITING,
}
_ENDED = frozenset(
    {
        RolloutPhase.ROLLOUT_PHASE_PROMOTED,
        RolloutPhase.ROLLOUT_PHASE_ROLLED_BACK,
        RolloutPhase.ROLLOUT_PHASE_INCONCLUSIVE,
        RolloutPhase.ROLLOUT_PHASE_SUPERSEDED,
    }
)
_VERDICT_COLOURS = {"better": _GOOD, "not worse": _GOOD, "worse": _BAD, "fired": _BAD}
_EXIT = {RolloutPhase.ROLLOUT_PHASE_ROLLED_BACK: 1, RolloutPhase.ROLLOUT_PHASE_INCONCLUSIVE: 3}


def show(found: Rollout, as_json: bool) -> None:
    """Prints a rollout as it stands."""
    if as_json:
        print_json(as_dict(found))
    else:
        Console().print(screen(found))


def watched(ask: Callable[[], Rollout]) -> Rollout:
    """Shows a rollout anew every second until it has ended; how it ended."""
    found = ask()
    with Live(screen(found), auto_refresh=False, console=Console()) as live:
        while not is_over(found):
            time.sleep(_LOOK_S)
            found = ask()
            live.update(screen(found), refresh=True)
    return found


def exit_status(found: Rollout) -> int:
    """For scripts: 1 when it was rolled back, 3 when nobody can tell, else 0."""
    return _EXIT.get(found.phase, 0)


def is_over(found: Rollout) -> bool:
    """Whether nothing more becomes of it."""
    return found.phase in _ENDED


def screen(found: Rollout) -> RenderableType:
    """All that is known of a rollout, the most urgent first."""
    parts: list[RenderableType] = [_headline(found)]
    if found.reason:
        parts.append(Text(found.reason))
    parts.append(Text(_course(found), style="dim"))
    if found.steps_bp:
        parts.append(_ramp(found))
    if found.gates:
        parts.append(_gates(found.gates))
    if found.comparisons:
        parts.append(_arms(found.comparisons))
    return Group(*parts)


def phase_name(phase: RolloutPhase.ValueType) -> str:
    """`ROLLOUT_PHASE_ROLLING_BACK` → `rolling back`."""
    return RolloutPhase.Name(phase).removeprefix("ROLLOUT_PHASE_").replace("_", " ").lower()


def show_list(found: ListRolloutsResponse, as_json: bool) -> None:
    """Prints a page of rollouts."""
    if as_json:
        print_json(as_dict(found))
        return
    columns = ("rollout", "phase", "kind", "release", "baseline", "lineage", "people", "begun", "reason")
    more = f"more: --page-token {found.next_page_token}" if found.next_page_token else ""
    print_table("Rollouts", columns, [_row(one) for one in found.rollouts], more)


def show_history(found: GetRolloutHistoryResponse, with_evidence: bool, as_json: bool) -> None:
    """Prints a page of transitions, oldest first."""
    if as_json:
        print_json(as_dict(found))
        return
    columns = ("number", "time", "rollout", "from", "to", "by", "reason")
    more = f"more: --page-token {found.next_page_token}" if found.next_page_token else ""
    print_table("Transitions", columns, [_transition(one) for one in found.transitions], more)
    if with_evidence:
        for one in found.transitions:
            Console(highlight=False, markup=False).print(f"{one.number}: {_indented(one.evidence)}")


def _headline(found: Rollout) -> Text:
    colour = _COLOURS.get(found.phase, "cyan")
    line = Text(f"{found.rollout}  ", style="bold")
    line.append(phase_name(found.phase).upper(), style=f"bold {colour}")
    line.append(f"  for {_ago(found.phase_time)}", style="dim")
    return line


def _course(found: Rollout) -> str:
    baseline = found.baseline or "nothing"
    return f"{_kind(found)}: {baseline} -> {found.release} of lineage {found.lineage}, begun {_time(found.create_time)}"


def _ramp(found: Rollout) -> Text:
    """The steps with the present one marked: `1 % · [10 %] · 50 %`."""
    line = Text("people: ")
    for number, step in enumerate(found.steps_bp):
        line.append(" · " if number else "")
        is_now = step == found.share_bp
        line.append(f"[{_percent(step)}]" if is_now else _percent(step), style="bold" if is_now else "dim")
    if found.share_bp not in found.steps_bp:
        line.append(f"  (now {_percent(found.share_bp)})")
    return line


def _gates(gates: Iterable[GateVerdict]) -> Table:
    table = Table("gate", "", "found", title="Gates", title_justify="left")
    for gate in gates:
        table.add_row(str(gate.gate), *_gate(gate))
    return table


def _gate(gate: GateVerdict) -> tuple[Text, Text]:
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in sorted(gate.numbers.items()))
    said = " | ".join(part for part in (gate.reason, numbers) if part)
    return Text("passed", style=_GOOD) if gate.passed else Text("failed", style=_BAD), Text(said)


def _arms(comparisons: Iterable[Comparison]) -> Table:
    table = Table("metric", "", "stable", "canary", "difference", "interval", "people", title="Arms")
    table.title_justify = "left"
    for column in table.columns[2:]:
        column.justify = "right"
    for one in comparisons:
        table.add_row(*_comparison(one))
    return table


def _comparison(one: Comparison) -> tuple[RenderableType, ...]:
    return (
        one.metric,
        Text(one.verdict, style=_VERDICT_COLOURS.get(one.verdict, "")),
        f"{one.stable:.4g}",
        f"{one.canary:.4g}",
        f"{one.difference:+.1%}",
        f"{one.lower:+.1%} … {one.upper:+.1%}",
        f"{one.stable_count:,} / {one.canary_count:,}",
    )


def _row(one: Rollout) -> tuple[object, ...]:
    return (
        one.rollout,
        phase_name(one.phase),
        _kind(one),
        one.release,
        one.baseline,
        one.lineage,
        _percent(one.share_bp),
        _time(one.create_time),
        one.reason,
    )


def _transition(one: RolloutTransition) -> tuple[object, ...]:
    from_phase = phase_name(one.from_phase) if one.from_phase else "-"
    return (one.number, _time(one.time), one.rollout, from_phase, phase_name(one.to_phase), one.actor, one.reason)


def _kind(found: Rollout) -> str:
    return RolloutKind.Name(found.kind).removeprefix("ROLLOUT_KIND_").lower()


def _percent(share_bp: int) -> str:
    return f"{share_bp / 100:g} %"


def _time(time_of: Timestamp) -> str:
    return str(time_of.ToDatetime().isoformat(sep=" ", timespec="seconds"))


def _ago(since: Timestamp) -> str:
    seconds = max(0.0, time.time() - since.ToMicroseconds() / 1e6)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _indented(evidence: str) -> str:
    return json.dumps(json.loads(evidence), indent=2) if evidence else "none"
