"""`headrace replay`: a data set sent into a running suite as it happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, DataFolder, Json, moment, told
from headrace.runtime.errors import InvalidRequestError

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.cli.sending import Counts, Sender
    from headrace.datasets.feed import Chunk
    from headrace.datasets.source import Dataset
    from headrace.v1.common_pb2 import UserEvent

# how much wall time one paced portion stands for
_PORTION_S = 0.25


@told
def replay(
    name: Annotated[str, typer.Argument(metavar="DATASET", help="online_retail, diginetica, simulated-shop …")],
    speed: Annotated[
        str, typer.Option(help="max, or how many times faster than real time: 3600 is an hour a second.")
    ] = "max",
    start: Annotated[
        str | None, typer.Option("--from", help="First day, such as 2011-03-07.", show_default=False)
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="First day that is not sent.", show_default=False)] = None,
    in_flight: Annotated[int, typer.Option(min=1, max=32, help="Batches of 500 under way at once.")] = 4,
    data: DataFolder = None,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Send a data set into a running suite: products as they come on sale, events as they happened.

    Every person's events keep their order. When the door is behind, replay
    waits. Sending the same again adds no event: the door knows repeats.

    \b
    Examples:
      headrace replay online_retail
      headrace replay online_retail --from 2011-03-07 --speed 86400
      headrace replay simulated-shop --speed max --json
    """
    from headrace.cli.conversation import ask
    from headrace.datasets.source import find

    dataset = find(name, data)
    factor = speed_factor(speed)
    begin, until = moment(start, "--from"), moment(end, "--to")

    async def conversation(client: Client) -> Counts:
        with _Progress(dataset, begin, until, quiet=as_json) as progress:
            return await send_dataset(client, dataset, begin, until, factor, in_flight, progress.show)

    begun = time.monotonic()
    counts = ask(data_dir, address, conversation)
    _print(_summary(dataset, counts, time.monotonic() - begun), as_json)


async def send_dataset(
    client: Client,
    dataset: Dataset,
    start: datetime | None,
    end: datetime | None,
    speed: float | None,
    in_flight: int,
    show: Callable[[datetime, Counts], None],
) -> Counts:
    """Sends `dataset` through the door; `speed` None is as fast as it goes. `show` gets the shop's clock and counts."""
    from headrace.cli.sending import Sender
    from headrace.datasets.feed import feed

    async with Sender(client.ingest, in_flight) as sender:
        pace = Pace(speed)
        for chunk in feed(dataset, start, end):
            await sender.write_products(chunk.products)
            await _send_chunk(sender, chunk, pace)
            show(chunk.time, sender.counts)
        await sender.flush()
        show(end or dataset.span.end, sender.counts)
        return sender.counts


async def _send_chunk(sender: Sender, chunk: Chunk, pace: Pace) -> None:
    for due_us, portion in pace.portions(chunk):
        await pace.wait_until(due_us)
        await sender.send(portion)


class Pace:
    """Lets events pass `speed` times faster than they happened; None lets all pass."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._clock_us = 0
        self._first_us = 0
        self._begun = 0.0

    def portions(self, chunk: Chunk) -> Iterator[tuple[int, list[UserEvent]]]:
        """Runs of events that are sent together, each with the moment that it is due at in the shop's time."""
        if self._speed is None or not chunk.events:
            yield 0, chunk.events
            return
        from headrace.datasets.times import us

        width_us = int(self._speed * _PORTION_S * 1e6)
        latest_us = us(chunk.time)
        portion: list[UserEvent] = []
        begun_us = self._clock_us
        for event in chunk.events:
            # the clock only goes forward, and absurd times do not move it
            self._clock_us = max(self._clock_us, min(event.event_time.ToMicroseconds(), latest_us))
            if portion and self._clock_us >= begun_us + width_us:
                yield begun_us, portion
                portion = []
            if not portion:
                begun_us = self._clock_us
            portion.append(event)
        yield begun_us, portion

    async def wait_until(self, due_us: int) -> None:
        """Returns when the shop's time has come to `due_us`."""
        if self._speed is None:
            return
        if not self._begun:
            self._begun, self._first_us = time.monotonic(), due_us
        due = self._begun + (due_us - self._first_us) / 1e6 / self._speed
        await asyncio.sleep(max(0.0, due - time.monotonic()))


class _Progress:
    """A bar over the time of the data set, with the rate of events and the time left."""

    def __init__(self, dataset: Dataset, start: datetime | None, end: datetime | None, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        span = dataset.span
        self._start = max(span.start, start) if start else span.start
        self._end = min(span.end, end) if end else span.end
        self._begun = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %  {task.fields[events]:,} events  {task.fields[rate]:,.0f}/s  left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet,
        )
        seconds = max((self._end - self._start) / timedelta(seconds=1), 1.0)
        self._task = self._bar.add_task(dataset.name, total=seconds, events=0, rate=0.0)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, clock: datetime, counts: Counts) -> None:
        self._bar.update(
            self._task,
            completed=(clock - self._start) / timedelta(seconds=1),
            description=f"{clock:%Y-%m-%d}",
            events=counts.events,
            rate=counts.events / max(time.monotonic() - self._begun, 1e-9),
        )


def speed_factor(speed: str) -> float | None:
    """How many times faster than real time; None for as fast as it goes."""
    if speed == "max":
        return None
    try:
        factor = float(speed.removesuffix("x"))
    except ValueError as error:
        raise InvalidRequestError.of("--speed", f"must be max or a number, got {speed!r}") from error
    if not 0 < factor < float("inf"):
        raise InvalidRequestError.of("--speed", f"must be above 0, got {speed!r}")
    return factor


def _summary(dataset: Dataset, counts: Counts, seconds: float) -> dict[str, Any]:
    return {
        "dataset": dataset.name,
        "is_simulated": dataset.is_simulated,
        "licence": dataset.licence,
        "events": counts.events,
        "accepted": counts.accepted,
        "duplicates": counts.duplicates,
        "rejected": dict(counts.rejected),
        "products_written": counts.products,
        "products_unchanged": counts.unchanged_products,
        "products_rejected": dict(counts.rejected_products),
        "waits": counts.waits,
        "newest_offset": counts.newest_offset,
        "seconds": round(seconds, 3),
        "events_per_second": round(counts.events / max(seconds, 1e-9), 1),
    }


def _print(summary: dict[str, Any], as_json: bool) -> None:
    from headrace.cli.output import print_facts, print_json

    if as_json:
        print_json(summary)
        return
    shown = dict(summary)
    for name in ("rejected", "products_rejected"):
        reasons: dict[str, int] = shown[name]
        shown[name] = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items())) or 0
    print_facts({name.replace("_", " "): value for name, value in shown.items()})
