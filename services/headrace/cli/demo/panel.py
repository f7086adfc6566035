"""The live picture of a demo run in the terminal."""

from __future__ import annotations

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from headrace.cli.demo.record import Answer, Click, DemoRecord, Stopped, Undone, WeekQuality

_WEEKS_SHOWN = 8


class DemoPanel:
    """Draws a record as it is at each refresh of a rich Live."""

    def __init__(self, record: DemoRecord) -> None:
        self._record = record

    def __rich__(self) -> RenderableType:
        record = self._record
        title = f"headrace demo · {record.dataset}" + (" (simulated shop)" if record.is_simulated else "")
        body = Group(_progress(record), Columns([_events(record), _stages(record), _releases(record)]), _weeks(record))
        return Panel(body, title=title, subtitle=f"{record.phase} · {record.elapsed_s:.0f} s")


def _progress(record: DemoRecord) -> RenderableType:
    total = max(record.expected_events, record.sent, 1)
    line = Text(f"{record.sent:,} of {total:,} events · {record.events_per_s:,.0f}/s · shop time {record.log_time}")
    return Group(line, ProgressBar(total=total, completed=record.sent, width=100))


def _facts(title: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left", box=None, padding=(0, 1))
    for name, value in rows:
        table.add_row(name, Text(value, justify="right"))
    return table


def _events(record: DemoRecord) -> Table:
    rows = [
        ("products", f"{record.products:,}"),
        ("accepted", f"{record.accepted:,}"),
        ("duplicates", f"{record.duplicates:,}"),
    ]
    rows += [(f"refused: {reason}", f"{count:,}") for reason, count in sorted(record.rejected_by_reason.items())]
    return _facts("at the door", rows)


def _stages(record: DemoRecord) -> Table:
    table = Table("stage", "p50 ms", "p99 ms", "behind", title="freshness", title_justify="left", box=None)
    for stage in record.lags.keys() | record.behind.keys():
        lag = record.lags.get(stage)
        quantiles = (f"{lag.p50_ms:,.0f}", f"{lag.p99_ms:,.0f}") if lag else ("", "")
        behind = f"{record.behind[stage]:,}" if stage in record.behind else ""
        table.add_row(stage, *quantiles, behind)
    return table


def _releases(record: DemoRecord) -> Table:
    rows = [
        ("serving", record.release or "none yet"),
        ("through the gates", f"{record.promoted}"),
        ("stopped", f"{record.rolled_back}"),
        ("delta sequence", f"{record.delta_sequence:,}"),
        ("vectors", f"{record.vectors:,}"),
    ]
    return _facts("learned", rows)


def _weeks(record: DemoRecord) -> Table:
    table = Table(
        "ISO week",
        "baskets",
        "Headrace",
        "popularity",
        "personal + popularity",
        title="Recall@20, asked before the week is streamed, beside two floors",
        title_justify="left",
        box=None,
    )
    mean = record.mean_quality()
    for week in [*record.weeks[-_WEEKS_SHOWN:], *([mean] if mean else [])]:
        table.add_row(*_cells(week), style="bold" if week is mean else "")
    return table


def _cells(week: WeekQuality) -> tuple[str, ...]:
    return (week.week, str(week.baskets), *(f"{value:.3f}" for value in (week.served, week.popularity, week.personal)))


def click_table(click: Click) -> Group:
    """Both lists side by side, what happened between them, and where the time went."""
    table = Table("before", "after", "why", title=f"click, and the list changed · {click.person}", title_justify="left")
    known = {shown.product_id for shown in click.before.shown}
    for old, new in zip(click.before.shown, click.after.shown, strict=False):
        style = "" if new.product_id in known else "bold green"
        table.add_row(old.title, Text(new.title, style=style), ", ".join(new.reasons))
    between = Text("between them: " + "; ".join(click.events))
    return Group(table, between, _stage_times(click.after, click.event_to_answer_ms))


def gates_text(stopped: Stopped, undone: Undone) -> Group:
    """What became of the bad release, step by step, and of the good one that was taken back."""
    title = Text(f"a release gone bad on purpose · {stopped.release} is {stopped.served} with its order upside down")
    course = [Text(f"  {stopped.rollout} {step}") for step in stopped.course]
    users = f"  {stopped.answers} answers meanwhile, {stopped.answers_by_it} of them by it; {stopped.seconds:.1f} s"
    back = f"undo: from {undone.release} back to {undone.back_to} in {undone.took_ms:.0f} ms"
    return Group(title, *course, Text(users, style="bold"), Text(back))


def _stage_times(answer: Answer, event_to_answer_ms: float) -> Text:
    stages = " · ".join(f"{stage} {ms:.1f} ms" for stage, ms in answer.stage_ms.items())
    return Text(
        f"event sent → changed list in {event_to_answer_ms:.0f} ms; the answer took {answer.total_ms:.1f} ms"
        f" ({stages}), made by {answer.release}"
    )
