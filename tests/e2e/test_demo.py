"""The demo runs from start to report on the simulated shop, and shows what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from headrace.cli.demo.run import DemoPlan, run_demo
from headrace.datasets.simulated_shop import ShopSettings, SimulatedShop

SMALL = DemoPlan(
    warm_up_weeks=2,
    weeks_behind=0,
    history_weeks=3,
    baskets_a_week=5,
    live_s=2.0,
    live_events_per_s=100,
    probes_each=2,
)
# a quarter of the demo's: the rest would only be learned longer
SHOP = ShopSettings(products=500, users=625)


@pytest.mark.timeout(240)
async def test_a_shop_is_streamed_learned_and_a_click_changes_a_list(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    console = Console(record=True, width=120)
    record = await run_demo(SMALL, SimulatedShop(SHOP), tmp_path / "suite", report, console, stay=False)
    assert record.accepted > 10_000
    assert record.rejected_by_reason["bot-pattern"] > 0
    assert record.sent == record.accepted + record.duplicates + sum(record.rejected_by_reason.values())
    assert sum(week.baskets for week in record.weeks) >= 5
    assert set(record.live) == {
        "click → changed list",
        "new product → search",
        "event → learned vector served",
    }
    assert record.click is not None
    before, after = (
        [shown.product_id for shown in answer.shown] for answer in (record.click.before, record.click.after)
    )
    assert before != after
    # how many more came through by then is a matter of the machine
    assert record.promoted >= 1
    assert record.stopped is not None
    assert (record.stopped.answers > 20, record.stopped.answers_by_it) == (True, 0)
    assert [step.split(":")[0] for step in record.stopped.course] == [
        "validating",
        "shadowing",
        "rolling back",
        "rolled back",
    ]
    assert "gate 1 failed" in record.stopped.course[2]
    assert record.undone is not None
    assert record.undone.back_to
    page = report.read_text()
    assert "simulated" in page
    assert page.count("<svg") == 3
    # nothing is loaded from elsewhere
    assert not any(word in page for word in ('src="http', 'href="http', "<script", "<link", "@import"))
    assert "a release gone bad on purpose" in page
    text = console.export_text()
    assert all(words in text for words in ("gate 1 failed", "click, and the list changed"))
