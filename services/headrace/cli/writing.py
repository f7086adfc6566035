"""`headrace event` and `headrace product`: one thing through the door."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, moment, told
from headrace.runtime.errors import Fault, InvalidRequestError

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.v1.common_pb2 import Product, ProductDetail
    from headrace.v1.ingest_pb2 import (
        DeleteProductResponse,
        WriteProductsResponse,
        WriteResult,
        WriteUserEventsResponse,
    )

products = typer.Typer(no_args_is_help=True, help="Write or delete a product.", rich_markup_mode="rich")


@told
def event(
    event_type: Annotated[str, typer.Argument(help="detail-page-view, search, add-to-cart, purchase-complete …")],
    visitor: Annotated[str, typer.Option(help="The device or browser.", show_default=False)] = "",
    user: Annotated[str, typer.Option(help="The person, when logged in.", show_default=False)] = "",
    product: Annotated[
        list[str], typer.Option(help="A product of the event, ID or ID:QUANTITY. May be repeated.", show_default=False)
    ] = [],  # noqa: B006  # typer reads it, nobody changes it
    query: Annotated[str, typer.Option(help="The words searched for.", show_default=False)] = "",
    category: Annotated[str, typer.Option(help='The page\'s category: "Shoes > Boots".', show_default=False)] = "",
    token: Annotated[str, typer.Option(help="attribution_token of the answer that led here.", show_default=False)] = "",
    transaction: Annotated[str, typer.Option(help="The order.", show_default=False)] = "",
    event_id: Annotated[
        str, typer.Option("--id", help="Idempotency key; derived when empty.", show_default=False)
    ] = "",
    at: Annotated[
        str | None, typer.Option(help="When it happened (UTC); now when left out.", show_default=False)
    ] = None,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Send one user event and say where it is in the log. Exit 1 when the door refused it.

    \b
    Examples:
      headrace event detail-page-view --visitor v1 --product 85123A
      headrace event purchase-complete --user u1 --product 85123A:6
      headrace event search --visitor v1 --query "lunch box"
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.datasets.times import timestamp, us
    from headrace.runtime.clock import now_us
    from headrace.v1.common_pb2 import UserEvent
    from headrace.v1.ingest_pb2 import WriteUserEventsRequest

    when = moment(at, "--at")
    sent = UserEvent(
        event_id=event_id,
        event_type=event_type,
        visitor_id=visitor,
        user_id=user,
        event_time=timestamp(us(when) if when else now_us()),
        product_details=[_detail(text) for text in product],
        search_query=query,
        attribution_token=token,
        page_categories=[category] if category else [],
        transaction_id=transaction,
    )

    async def conversation(client: Client) -> WriteUserEventsResponse:
        return await client.ingest.WriteUserEvents(WriteUserEventsRequest(events=[sent]), timeout=CALL_TIMEOUT_S)

    _tell(list(ask(data_dir, address, conversation).results), as_json)


@products.command()
@told
def write(
    product_id: Annotated[str, typer.Argument(metavar="[ID]", help="The product's id.", show_default=False)] = "",
    title: Annotated[str, typer.Option(help="What it is called.", show_default=False)] = "",
    price: Annotated[float | None, typer.Option(help="Price now.", show_default=False)] = None,
    brand: Annotated[str, typer.Option(help="Its brand.", show_default=False)] = "",
    category: Annotated[list[str], typer.Option(help='"Shoes > Boots". May be repeated.', show_default=False)] = [],  # noqa: B006
    description: Annotated[str, typer.Option(help="More words.", show_default=False)] = "",
    file: Annotated[
        Path | None,
        typer.Option(
            help="JSON: one Product, or a list of them, by the proto's names. - is stdin.", show_default=False
        ),
    ] = None,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Create or replace products. Exit 1 when the door refused one.

    \b
    Examples:
      headrace product write p1 --title "Red boots" --category "Shoes > Boots"
      headrace product write --file products.json
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.v1.common_pb2 import PriceInfo, Product
    from headrace.v1.ingest_pb2 import WriteProductsRequest

    if (file is None) == (not product_id):
        raise InvalidRequestError.of("product", "name an ID or a --file, not both")
    one = Product(
        id=product_id,
        title=title,
        description=description,
        brands=[brand] if brand else [],
        categories=category,
        price_info=PriceInfo(price=price) if price is not None else None,
    )
    written = [one] if file is None else _products_of(file)

    async def conversation(client: Client) -> WriteProductsResponse:
        return await client.ingest.WriteProducts(WriteProductsRequest(products=written), timeout=CALL_TIMEOUT_S)

    _tell(list(ask(data_dir, address, conversation).results), as_json)


@products.command()
@told
def delete(
    product_id: Annotated[str, typer.Argument(metavar="ID", help="The product's id.")],
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Take a product out of every answer; its history stays.

    \b
    Example:
      headrace product delete p1
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.cli.output import print_json
    from headrace.v1.ingest_pb2 import DeleteProductRequest

    async def conversation(client: Client) -> DeleteProductResponse:
        return await client.ingest.DeleteProduct(DeleteProductRequest(product_id=product_id), timeout=CALL_TIMEOUT_S)

    offset = ask(data_dir, address, conversation).offset
    if as_json:
        print_json({"id": product_id, "offset": offset})
    else:
        typer.echo(f"deleted {product_id}, offset {offset:,}")


def _detail(text: str) -> ProductDetail:
    from headrace.v1.common_pb2 import ProductDetail

    product_id, colon, quantity = text.rpartition(":")
    if colon and quantity.isdecimal():
        return ProductDetail(product_id=product_id, quantity=int(quantity))
    return ProductDetail(product_id=text, quantity=1)


def _products_of(file: Path) -> list[Product]:
    import json

    try:
        stored = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except OSError as error:
        raise InvalidRequestError.of("--file", f"cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise InvalidRequestError.of("--file", f"is not JSON: {error}") from error
    return [_product_of(entry, place) for place, entry in enumerate(stored if isinstance(stored, list) else [stored])]


def _product_of(entry: object, place: int) -> Product:
    from google.protobuf.json_format import ParseDict, ParseError

    from headrace.v1.common_pb2 import Product

    if not isinstance(entry, dict):
        raise InvalidRequestError([Fault(f"products[{place}]", f"must be an object, got {entry!r}")])
    try:
        return ParseDict(entry, Product())
    except ParseError as error:
        raise InvalidRequestError([Fault(f"products[{place}]", str(error))]) from error


def _tell(results: list[WriteResult], as_json: bool) -> None:
    from headrace.cli.output import as_dict, print_json
    from headrace.v1.ingest_pb2 import WriteResult

    refused = [result for result in results if result.outcome == WriteResult.OUTCOME_REJECTED]
    if as_json:
        print_json([as_dict(result) for result in results])
    for result in () if as_json else results:
        outcome = WriteResult.Outcome.Name(result.outcome).removeprefix("OUTCOME_").lower()
        faults = "; ".join(f"{violation.field}: {violation.description}" for violation in result.violations)
        where = f"offset {result.offset:,}" if result.offset else f"{result.reason}: {faults}"
        typer.echo(f"{outcome} {result.id}, {where}", err=bool(faults))
    if refused:
        raise typer.Exit(1)
