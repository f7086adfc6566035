"""`headrace features`: what is computed of users and items, its values, its drift, and tables joined as of a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.v1.common_pb2 import Channel
    from headrace.v1.feature_store_pb2 import (
        FeatureView,
        GetFeatureDriftResponse,
        GetOnlineFeaturesResponse,
        ListFeatureViewsResponse,
    )

features = typer.Typer(
    no_args_is_help=True, help="List features, read them, see them drift, join tables.", rich_markup_mode="rich"
)

_NAMES = "View, feature or view:feature; may be repeated. All that can be read when none is named."


@features.command("list")
@told
def list_(data_dir: DataDir = DATA_DIR, address: Address = [], as_json: Json = False) -> None:  # noqa: B006
    """List feature views: what is computed, of whom, over which windows, and whether it is live.

    \b
    Example:
      headrace features list
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.cli.output import as_dict, print_json, print_table
    from headrace.v1.feature_store_pb2 import ListFeatureViewsRequest

    async def conversation(client: Client) -> ListFeatureViewsResponse:
        return await client.feature_store.ListFeatureViews(ListFeatureViewsRequest(), timeout=CALL_TIMEOUT_S)

    response = ask(data_dir, address, conversation)
    if as_json:
        print_json(as_dict(response))
        return
    columns = ("view", "version", "hash", "entity", "features", "windows", "state")
    print_table("Feature views", columns, [_row(view) for view in response.feature_views])


def _row(view: FeatureView) -> tuple[object, ...]:
    from headrace.v1.feature_store_pb2 import FEATURE_VIEW_STATE_BACK_FILLING

    state = "live" if view.is_online else "live, by rankers"
    if view.state == FEATURE_VIEW_STATE_BACK_FILLING:
        state = f"back-filling {view.back_fill_offset:,} of {view.back_fill_end_offset:,}"
    windows, short_hash = " ".join(view.windows), view.definition_hash[:12]
    return (view.name, view.version, short_hash, view.entity, len(view.features), windows, state)


@features.command()
@told
def get(
    user: Annotated[str, typer.Option(help="Signed-in user.", show_default=False)] = "",
    visitor: Annotated[str, typer.Option(help="Visitor who is not signed in.", show_default=False)] = "",
    item: Annotated[list[str] | None, typer.Option(help="Product id; may be repeated.", show_default=False)] = None,
    channel: Annotated[str, typer.Option(help="Channel: web, app, store …", show_default=False)] = "",
    store: Annotated[str, typer.Option(help="Dated facts of this store and of everywhere.", show_default=False)] = "",
    feature: Annotated[list[str] | None, typer.Option(help=_NAMES, show_default=False)] = None,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Read features of a person, of items and of a channel, all as of one offset of the log.

    \b
    Examples:
      headrace features get --user u7 --item 85123A --item 22423
      headrace features get --item 85123A --feature item_windows --feature price --json
      headrace features get --user u7 --item 85123A --feature dated_facts --store 12
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.cli.output import print_json, print_table
    from headrace.v1.feature_store_pb2 import GetOnlineFeaturesRequest

    request = GetOnlineFeaturesRequest(
        user_key=_user_key(user, visitor),
        product_ids=item or [],
        features=feature or [],
        channel=_channel(channel),
        store_id=store,
    )

    async def conversation(client: Client) -> GetOnlineFeaturesResponse:
        return await client.feature_store.GetOnlineFeatures(request, timeout=CALL_TIMEOUT_S)

    response = ask(data_dir, address, conversation)
    values = _values(response, item or [])
    if as_json:
        facts = {"offset": response.offset, "now_us": response.now_us, "feature_schema": response.feature_schema}
        print_json({**facts, "features": values})
        return
    rows = [(of, name, value) for of, named in values.items() for name, value in named.items()]
    print_table("Features", ("of", "feature", "value"), rows, f"as of offset {response.offset:,}")


def _user_key(user: str, visitor: str) -> str:
    from headrace.runtime.errors import InvalidRequestError

    if user and visitor:
        raise InvalidRequestError.of("--user", "must not be given together with --visitor")
    return f"u:{user}" if user else f"v:{visitor}" if visitor else ""


def _channel(name: str) -> Channel.ValueType:
    from headrace.runtime.errors import InvalidRequestError
    from headrace.v1.common_pb2 import CHANNEL_UNSPECIFIED, Channel

    known = {key.removeprefix("CHANNEL_").lower().replace("_", "-"): value for key, value in Channel.items() if value}
    if name and name not in known:
        raise InvalidRequestError.of("--channel", f"must be one of {', '.join(known)}, got {name!r}")
    return known.get(name, CHANNEL_UNSPECIFIED)


def _values(response: GetOnlineFeaturesResponse, items: list[str]) -> dict[str, dict[str, float]]:
    """Values by feature, by whom they are of: "user", a product's id, "channel"."""
    import struct

    def unpacked(packed: bytes) -> list[float]:
        return list(struct.unpack(f"<{len(packed) // 4}f", packed))

    matrix = response.item_features
    all_items, width = unpacked(matrix.values), matrix.columns
    found = {"user": dict(zip(response.user_feature_names, unpacked(response.user_features), strict=True))}
    for place, item in enumerate(items):
        row = all_items[place * width : (place + 1) * width]
        found[item] = dict(zip(response.item_feature_names, row, strict=True))
    found["channel"] = dict(zip(response.channel_feature_names, unpacked(response.channel_features), strict=True))
    return {of: values for of, values in found.items() if values}


@features.command()
@told
def drift(
    after: Annotated[int, typer.Option(min=0, help="Recent period: after this offset.", show_default=False)] = 0,
    until: Annotated[int, typer.Option(min=0, help="Recent period: up to this offset.", show_default=False)] = 0,
    reference_after: Annotated[
        int, typer.Option(min=0, help="Reference period: after this offset.", show_default=False)
    ] = 0,
    reference_until: Annotated[
        int, typer.Option(min=0, help="Reference period: up to this offset.", show_default=False)
    ] = 0,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Show how the features of training rows have moved: the population stability index, most moved first.

    Without offsets the newest tenth of what is kept is held against the oldest half of what is before it.

    \b
    Examples:
      headrace features drift
      headrace features drift --reference-after 0 --reference-until 50000 --after 90000 --until 100000 --json
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.cli.output import as_dict, print_json, print_table
    from headrace.v1.feature_store_pb2 import GetFeatureDriftRequest

    request = GetFeatureDriftRequest(
        after_offset=after,
        until_offset=until,
        reference_after_offset=reference_after,
        reference_until_offset=reference_until,
    )

    async def conversation(client: Client) -> GetFeatureDriftResponse:
        return await client.feature_store.GetFeatureDrift(request, timeout=CALL_TIMEOUT_S)

    response = ask(data_dir, address, conversation)
    if as_json:
        print_json(as_dict(response))
        return
    moved = sorted(response.features, key=lambda one: -one.stability)
    rows = [(one.feature, one.stability, one.reference_mean, one.recent_mean, one.not_finite) for one in moved]
    title = f"Drift of {response.recent_rows:,} rows from {response.reference_rows:,}"
    print_table(title, ("feature", "stability", "mean then", "mean now", "not finite"), rows)


@features.command()
@told
def join(
    labels: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Parquet file of labels.")],
    rows: Annotated[Path, typer.Option("--features", exists=True, dir_okay=False, help="Parquet file of features.")],
    entity: Annotated[str, typer.Option(help="Column of both that names whose they are.")],
    time: Annotated[str, typer.Option(help="Column of both: when.")],
    out: Annotated[Path, typer.Option(help="Parquet file to be written.")],
    as_json: Json = False,
) -> None:
    """Join labels with the features that their entity had at their time; every label is kept.

    \b
    Example:
      headrace features join --labels l.parquet --features f.parquet --entity user_id --time event_time --out j.parquet
    """
    import polars as pl

    from headrace.cli.output import print_facts, print_json
    from headrace.datasets.as_of_join import join_as_of

    joined, found = join_as_of(pl.read_parquet(labels), pl.read_parquet(rows), entity, time)
    joined.write_parquet(out)
    facts = {"labels": len(joined), "with_features": found, "without_features": len(joined) - found, "out": str(out)}
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)
