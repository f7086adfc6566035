"""`headrace deadletters`: what the door refused, mending it, and trying it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.v1.ingest_pb2 import DeadLetter, ListDeadLettersResponse, ReplayDeadLettersRequest

letters = typer.Typer(no_args_is_help=True, help="List, mend or replay refused events.", rich_markup_mode="rich")

_IMPORTED_AT_ONCE = 1_000

Excuse = Annotated[
    list[str],
    typer.Option(
        help="A rule that refuses nothing this time: bot, bot-pattern, repeat, outlier. May be repeated.",
        show_default=False,
    ),
]
Reason = Annotated[str, typer.Option(help="Only this reason: price, time, missing …", show_default=False)]


@letters.command("list")
@told
def list_(
    reason: Reason = "",
    size: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 50,
    page_token: Annotated[str, typer.Option(help="From the page before.", show_default=False)] = "",
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Show refused events, newest first, each with every fault.

    \b
    Examples:
      headrace deadletters list
      headrace deadletters list --reason price --size 10
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.cli.output import as_dict, print_json, print_table
    from headrace.v1.ingest_pb2 import ListDeadLettersRequest

    request = ListDeadLettersRequest(page_size=size, page_token=page_token, reason=reason)

    async def conversation(client: Client) -> ListDeadLettersResponse:
        return await client.ingest.ListDeadLetters(request, timeout=CALL_TIMEOUT_S)

    response = ask(data_dir, address, conversation)
    if as_json:
        print_json(as_dict(response))
        return
    columns = ("id", "refused", "type", "who", "reason", "faults")
    more = f"more: --page-token {response.next_page_token}" if response.next_page_token else ""
    print_table("Dead letters", columns, [_row(letter) for letter in response.dead_letters], more)


@letters.command()
@told
def replay(
    letter_id: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="Which; all when none is named.", show_default=False)
    ] = None,
    reason: Reason = "",
    excuse: Excuse = [],  # noqa: B006
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Send refused events through the door again, after a rule or a clock was put right.

    \b
    Examples:
      headrace deadletters replay
      headrace deadletters replay 17 18
      headrace deadletters replay --reason time
      headrace deadletters replay 17 --excuse outlier
    """
    from headrace.v1.ingest_pb2 import ReplayDeadLettersRequest

    request = ReplayDeadLettersRequest(ids=letter_id or [], reason=reason, excused_rules=excuse)
    _replay([request], data_dir, address, as_json)


@letters.command()
@told
def export(
    file: Annotated[Path, typer.Argument(help="Where to write, a letter a line of JSON.", dir_okay=False)],
    reason: Reason = "",
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Write refused events to a file, to be mended there and taken back by `import`.

    \b
    Examples:
      headrace deadletters export letters.jsonl --reason price
    """
    from headrace.cli.conversation import ask
    from headrace.cli.mending import line_of
    from headrace.cli.output import print_json

    async def conversation(client: Client) -> list[DeadLetter]:
        return await _all(client, reason)

    found = ask(data_dir, address, conversation)
    file.write_text("".join(f"{line_of(letter)}\n" for letter in found), encoding="utf-8")
    if as_json:
        print_json({"written": len(found), "file": str(file)})
    else:
        typer.echo(f"{len(found):,} dead letters → {file}")


@letters.command("import")
@told
def import_(
    file: Annotated[Path, typer.Argument(help="What `export` wrote, mended.", exists=True, dir_okay=False)],
    excuse: Excuse = [],  # noqa: B006
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Send the mended events of a file through the door; those that pass leave the list.

    A line that is left out of the file stays in the list as it is.

    \b
    Examples:
      headrace deadletters import letters.jsonl
    """
    from headrace.cli.mending import mended_of
    from headrace.v1.ingest_pb2 import ReplayDeadLettersRequest

    mended = list(mended_of(file.read_text(encoding="utf-8").splitlines(), file.name))
    parts = [mended[start : start + _IMPORTED_AT_ONCE] for start in range(0, len(mended), _IMPORTED_AT_ONCE)]
    requests = [ReplayDeadLettersRequest(mended=part, excused_rules=excuse) for part in parts]
    _replay(requests, data_dir, address, as_json)


@letters.command()
@told
def fix(
    letter_id: Annotated[int, typer.Argument(metavar="ID", help="Which.")],
    settings: Annotated[
        list[str], typer.Option("--set", metavar="FIELD=VALUE", help="What to change. May be repeated.")
    ],
    excuse: Excuse = [],  # noqa: B006
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Mend one refused event and send it through the door; when it passes it leaves the list.

    \b
    Examples:
      headrace deadletters fix 17 --set product_details.0.price=9.50
      headrace deadletters fix 18 --set event_type=add-to-cart --set user_id=
    """
    from headrace.cli.conversation import ask
    from headrace.cli.mending import changed
    from headrace.runtime.errors import NotFoundError
    from headrace.v1.ingest_pb2 import MendedDeadLetter, ReplayDeadLettersRequest

    async def conversation(client: Client) -> list[DeadLetter]:
        return [letter for letter in await _all(client, "") if letter.id == letter_id]

    found = ask(data_dir, address, conversation)
    if not found:
        raise NotFoundError(f"no dead letter {letter_id}")
    mended = MendedDeadLetter(id=letter_id, event=changed(found[0].event, settings))
    _replay([ReplayDeadLettersRequest(mended=[mended], excused_rules=excuse)], data_dir, address, as_json)


async def _all(client: Client, reason: str) -> list[DeadLetter]:
    from headrace.cli.conversation import CALL_TIMEOUT_S
    from headrace.v1.ingest_pb2 import ListDeadLettersRequest

    found: list[DeadLetter] = []
    token = ""
    while True:
        request = ListDeadLettersRequest(page_size=1_000, page_token=token, reason=reason)
        page = await client.ingest.ListDeadLetters(request, timeout=CALL_TIMEOUT_S)
        found += page.dead_letters
        token = page.next_page_token
        if not token:
            return found


def _replay(requests: Sequence[ReplayDeadLettersRequest], data_dir: Path, address: list[str], as_json: bool) -> None:
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.cli.output import as_dict, print_facts, print_json
    from headrace.v1.ingest_pb2 import ReplayDeadLettersResponse

    async def conversation(client: Client) -> ReplayDeadLettersResponse:
        done = ReplayDeadLettersResponse()
        for request in requests:
            part = await client.ingest.ReplayDeadLetters(request, timeout=CALL_TIMEOUT_S)
            done.replayed += part.replayed
            done.accepted += part.accepted
            done.still_rejected += part.still_rejected
        return done

    response = ask(data_dir, address, conversation)
    if as_json:
        print_json(as_dict(response))
        return
    facts = {"replayed": response.replayed, "accepted": response.accepted, "still rejected": response.still_rejected}
    print_facts(facts)


def _row(letter: DeadLetter) -> tuple[object, ...]:
    event = letter.event
    faults = "; ".join(f"{violation.field}: {violation.description}" for violation in letter.violations)
    refused = letter.refused_time.ToDatetime().isoformat(sep=" ", timespec="seconds")
    return letter.id, refused, event.event_type, event.user_id or event.visitor_id, letter.reason, faults
