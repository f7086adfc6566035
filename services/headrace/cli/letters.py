"""`headrace deadletters`: what the door refused, and trying it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.v1.ingest_pb2 import DeadLetter, ListDeadLettersResponse, ReplayDeadLettersResponse

letters = typer.Typer(no_args_is_help=True, help="List or replay refused events.", rich_markup_mode="rich")

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
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.cli.output import as_dict, print_facts, print_json
    from headrace.v1.ingest_pb2 import ReplayDeadLettersRequest

    request = ReplayDeadLettersRequest(ids=letter_id or [], reason=reason)

    async def conversation(client: Client) -> ReplayDeadLettersResponse:
        return await client.ingest.ReplayDeadLetters(request, timeout=CALL_TIMEOUT_S)

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
