"""The demo's report: one self-contained page with plots."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import jinja2
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headrace.cli.demo.record import DemoRecord

_INK, _SOFT, _ACCENT = "#1c2733", "#9aa7b4", "#0b7a75"


def write_report(record: DemoRecord, path: Path) -> None:
    """Writes the page; everything that it shows is inside it."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["zip"] = zip
    template = environment.from_string((files("headrace.cli.demo") / "report.html").read_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        template.render(
            record=record,
            mean=record.mean_quality(),
            quality_plot=_svg(lambda axes: _quality(axes, record)),
            events_plot=_svg(lambda axes: _events(axes, record)),
            live_plot=_svg(lambda axes: _live(axes, record)) if record.live else "",
        )
    )


def _svg(draw: Callable[[Axes], None]) -> str:
    # text stays text, ids are fixed: the page can be searched, and two runs can be compared
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "headrace", "font.size": 10}):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _quality(axes: Axes, record: DemoRecord) -> None:
    weeks = [week.week for week in record.weeks]
    places = range(len(weeks))
    axes.plot(places, [week.served for week in record.weeks], color=_ACCENT, lw=2.2, label="Headrace")
    axes.plot(places, [week.personal for week in record.weeks], color=_INK, lw=1.2, label="personal + popularity")
    axes.plot(places, [week.popularity for week in record.weeks], color=_SOFT, lw=1.2, label="popularity")
    step = max(1, len(weeks) // 10)
    axes.set_xticks(list(places)[::step], weeks[::step])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("Recall@20")
    axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))


def _events(axes: Axes, record: DemoRecord) -> None:
    axes.plot([rate.seconds for rate in record.rates], [rate.events for rate in record.rates], color=_ACCENT, lw=2)
    axes.set_xlabel("seconds since the start")
    axes.set_ylabel("events acknowledged")
    axes.set_ylim(bottom=0)


def _live(axes: Axes, record: DemoRecord) -> None:
    stages = list(record.live)
    places = range(len(stages))
    axes.barh(places, [record.live[stage].p99_ms for stage in stages], 0.5, color=_SOFT, label="p99")
    axes.barh(places, [record.live[stage].p50_ms for stage in stages], 0.5, color=_ACCENT, label="p50")
    axes.set_yticks(list(places), stages)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds, while events flowed")
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
