"""`headrace facts`: what is said to hold of products and people, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.v1.common_pb2 import DatedFact
    from headrace.v1.feature_store_pb2 import GetFactsRequest, GetFactsResponse

facts = typer.Typer(no_args_is_help=True, help="Dated facts: promotions, discounts, coupons, campaigns.")

_AT = "As of this date or time (UTC); the log's time when none is given."
_KNOWN = "As known when the log ended at this offset; 0: all that is known now."


@facts.command()
@told
def show(
    product: Annotated[str, typer.Option(help="Product id.", show_default=False)] = "",
    user: Annotated[str, typer.Option(help="Signed-in user.", show_default=False)] = "",
    visitor: Annotated[str, typer.Option(help="Visitor: a device.", show_default=False)] = "",
    category: Annotated[str, typer.Option(help="Category, as products name it.", show_default=False)] = "",
    brand: Annotated[str, typer.Option(help="Brand.", show_default=False)] = "",
    store: Annotated[str, typer.Option(help="Facts of this store and of everywhere.", show_default=False)] = "",
    at: Annotated[str | None, typer.Option(help=_AT, show_default=False)] = None,
    known_at: Annotated[int, typer.Option(min=0, metavar="OFFSET", help=_KNOWN, show_default=False)] = 0,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Show what held of a product, a person, a category or a brand at a moment.

    \b
    Examples:
      headrace facts show --product 85123A
      headrace facts show --user ann --at 2026-03-07 --json
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.cli.output import as_dict, print_json, print_table

    named = {"product": product, "user": user, "visitor": visitor, "category": category, "brand": brand}
    request = _request(named, store, at, known_at)

    async def conversation(client: Client) -> GetFactsResponse:
        return await client.feature_store.GetFacts(request, timeout=CALL_TIMEOUT_S)

    response = ask(data_dir, address, conversation)
    if as_json:
        print_json(as_dict(response))
        return
    columns = ("fact", "name", "value", "from", "until", "store", "campaign", "source")
    print_table("Dated facts", columns, [_row(fact) for fact in response.facts], f"as of offset {response.offset:,}")


def _request(named: dict[str, str], store: str, at: str | None, known_at: int) -> GetFactsRequest:
    from headrace.cli.options import moment
    from headrace.runtime.errors import InvalidRequestError
    from headrace.v1.common_pb2 import EntityKind
    from headrace.v1.feature_store_pb2 import GetFactsRequest

    given = [(kind, name) for kind, name in named.items() if name]
    if len(given) != 1:
        raise InvalidRequestError.of(", ".join(f"--{kind}" for kind in named), f"name one of them, got {len(given)}")
    ((kind, name),) = given
    request = GetFactsRequest(
        entity_kind=EntityKind.Value(f"ENTITY_KIND_{kind.upper()}"),
        entity_id=name,
        store_id=store,
        as_of_offset=known_at,
    )
    if (time := moment(at, "--at")) is not None:
        request.time.FromDatetime(time)
    return request


def _row(fact: DatedFact) -> tuple[object, ...]:
    value = fact.number if fact.HasField("number") else fact.text
    since = fact.valid_from.ToJsonString() if fact.HasField("valid_from") else "always"
    until = fact.valid_until.ToJsonString() if fact.HasField("valid_until") else "further notice"
    return (fact.fact_id, fact.name, value, since, until, fact.store_id or "all", fact.campaign_id, fact.source)
