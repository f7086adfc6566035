"""`headrace recommend` and `headrace search`: what a person would be shown now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.v1.common_pb2 import ProductFilter
    from headrace.v1.ranker_pb2 import AnswerInfo, RankedProduct, RecommendResponse, SearchResponse

User = Annotated[str, typer.Option("--user", help="The person, when logged in.", show_default=False)]
Visitor = Annotated[str, typer.Option("--visitor", help="The device or browser.", show_default=False)]
Category = Annotated[
    list[str], typer.Option("--category", help="Only this category or below it. May be repeated.", show_default=False)
]
Brand = Annotated[list[str], typer.Option("--brand", help="Only this brand. May be repeated.", show_default=False)]
MinPrice = Annotated[float | None, typer.Option("--min-price", help="Lowest price.", show_default=False)]
MaxPrice = Annotated[float | None, typer.Option("--max-price", help="Highest price.", show_default=False)]
Size = Annotated[int, typer.Option("--size", min=1, max=500, help="How many products.")]
Explain = Annotated[bool, typer.Option("--explain", help="Say why each product is there, and where the time went.")]


@told
def recommend(
    user: User = "",
    visitor: Visitor = "",
    config: Annotated[
        str, typer.Option(help="home, similar-items, frequently-bought-together, repurchase or recently-viewed.")
    ] = "home",
    product: Annotated[
        list[str], typer.Option(help="The product on the page. May be repeated.", show_default=False)
    ] = [],  # noqa: B006  # typer reads it, nobody changes it
    category: Category = [],  # noqa: B006
    brand: Brand = [],  # noqa: B006
    min_price: MinPrice = None,
    max_price: MaxPrice = None,
    size: Size = 20,
    explain: Explain = False,
    min_offset: Annotated[int, typer.Option(help="Wait until the state holds this log offset.")] = 0,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Show what a person would be recommended now.

    \b
    Examples:
      headrace recommend --user 17850
      headrace recommend --visitor v1 --config similar-items --product 85123A
      headrace recommend --user 17850 --max-price 5 --size 10 --explain
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.v1.ranker_pb2 import RecommendRequest

    request = RecommendRequest(
        serving_config=config,
        visitor_id=visitor,
        user_id=user,
        product_ids=product,
        filter=_filter(category, brand, min_price, max_price),
        page_size=size,
        explain=explain,
        return_products=True,
        min_offset=min_offset,
    )

    async def conversation(client: Client) -> RecommendResponse:
        return await client.ranker.Recommend(request, timeout=CALL_TIMEOUT_S)

    response = ask(data_dir, address, conversation)
    _show(f"{config} for {user or visitor}", response, explain, as_json)


@told
def search(
    query: Annotated[str, typer.Argument(help="Words; may be empty when a filter is given.")],
    user: User = "",
    visitor: Visitor = "",
    category: Category = [],  # noqa: B006
    brand: Brand = [],  # noqa: B006
    min_price: MinPrice = None,
    max_price: MaxPrice = None,
    order_by: Annotated[str, typer.Option(help='relevance, price, "price desc" or newest.')] = "relevance",
    size: Size = 20,
    page_token: Annotated[str, typer.Option(help="From the page before.", show_default=False)] = "",
    explain: Explain = False,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Search products by words, ranked for a person when one is named.

    \b
    Examples:
      headrace search "white hanging heart"
      headrace search "lunch box" --user 17850 --max-price 2
      headrace search "" --brand Northwind --order-by price
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.v1.ranker_pb2 import SearchRequest

    request = SearchRequest(
        query=query,
        visitor_id=visitor,
        user_id=user,
        filter=_filter(category, brand, min_price, max_price),
        page_size=size,
        page_token=page_token,
        order_by=order_by,
        explain=explain,
        return_products=True,
    )

    async def conversation(client: Client) -> SearchResponse:
        return await client.ranker.Search(request, timeout=CALL_TIMEOUT_S)

    response = ask(data_dir, address, conversation)
    _show(f"{response.total_size:,} products for {query!r}", response, explain, as_json)
    if response.next_page_token and not as_json:
        typer.echo(f"more: --page-token {response.next_page_token}")


def _filter(
    categories: list[str], brands: list[str], min_price: float | None, max_price: float | None
) -> ProductFilter | None:
    from headrace.v1.common_pb2 import ProductFilter

    if not categories and not brands and min_price is None and max_price is None:
        return None
    return ProductFilter(categories=categories, brands=brands, min_price=min_price, max_price=max_price)


def _show(title: str, response: RecommendResponse | SearchResponse, explain: bool, as_json: bool) -> None:
    from headrace.cli.output import as_dict, print_json, print_table

    if as_json:
        print_json(as_dict(response))
        return
    columns = ("#", "product", "title", "price", "score", *(("because",) if explain else ()))
    rows = [_row(place, found, explain) for place, found in enumerate(response.results, 1)]
    print_table(title, columns, rows, _caption(response.info))


def _row(place: int, found: RankedProduct, explain: bool) -> tuple[object, ...]:
    price = f"{found.product.price_info.price:.2f}" if found.product.HasField("price_info") else ""
    row = (place, found.product_id, found.product.title, price, found.score)
    return (*row, ", ".join(found.reasons)) if explain else row


def _caption(info: AnswerInfo) -> str:
    parts = [f"release {info.release or 'none yet'}", f"state at {info.state_offset:,}"]
    parts += [f"{stage} {ms:.1f} ms" for stage, ms in sorted(info.stage_ms.items())]
    parts += [f"without {reason}" for reason in info.degraded_reasons]
    return " · ".join(parts)
