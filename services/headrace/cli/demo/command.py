"""`headrace demo`: the whole suite on one machine, a shop streamed through it, and what it learned shown."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import DataFolder, Json, told

if TYPE_CHECKING:
    from headrace.cli.demo.record import DemoRecord


@told
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="The last weeks only: a little more than a minute.")] = False,
    stay: Annotated[bool, typer.Option("--stay", help="Keep the suite up at the end, until Ctrl-C.")] = False,
    data: DataFolder = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the report and of the demo's own suite, which is made anew.")
    ] = Path("demo"),
    as_json: Json = False,
) -> None:
    """Start everything, stream a shop through it, and watch it learn.

    Streams the real shop online_retail when its files are at hand, else a simulated one,
    which it says. Every week's baskets are asked for before they are streamed, and held
    against two floors. Then the last events come at the pace of a shop and freshness is
    measured. A release gone bad on purpose tries to reach people, a good one is taken
    back, and a click changes a list. Writes OUT/report.html.

    \b
    Examples:
      headrace demo
      headrace demo --quick --stay
    """
    from rich.console import Console

    from headrace.cli.demo.run import DemoPlan, demo_dataset, run_demo

    dataset = demo_dataset(data)
    data_dir = out / "suite"
    shutil.rmtree(data_dir, ignore_errors=True)
    plan = DemoPlan.quick() if quick else DemoPlan.whole()
    console = Console(stderr=as_json)
    try:
        record = asyncio.run(run_demo(plan, dataset, data_dir, out / "report.html", console, stay=stay))
    except KeyboardInterrupt:
        console.print("stopped")
        return
    if as_json:
        from headrace.cli.output import print_json

        print_json(_facts(record))


def _facts(record: DemoRecord) -> dict[str, object]:
    facts = dataclasses.asdict(record)
    del facts["rates"], facts["started"], facts["phase"]
    mean = record.mean_quality()
    return facts | {"quality": dataclasses.asdict(mean) if mean else None, "seconds": round(record.elapsed_s, 1)}
