"""`headrace releases`: what was published, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.v1.trainer_pb2 import ListReleasesResponse, Release


@told
def releases(
    size: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    page_token: Annotated[str, typer.Option(help="From the page before.", show_default=False)] = "",
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """List releases: the vectors, towers, ranker and features that belong together.

    \b
    Examples:
      headrace releases
      headrace releases --size 3 --json
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.cli.output import as_dict, print_json, print_table
    from headrace.v1.trainer_pb2 import ListReleasesRequest

    async def conversation(client: Client) -> ListReleasesResponse:
        request = ListReleasesRequest(page_size=size, page_token=page_token)
        return await client.trainer.ListReleases(request, timeout=CALL_TIMEOUT_S)

    response = ask(data_dir, address, conversation)
    if as_json:
        print_json(as_dict(response))
        return
    columns = ("release", "created", "space", "deltas", "log", "MiB", "recall@20")
    more = f"more: --page-token {response.next_page_token}" if response.next_page_token else ""
    print_table("Releases", columns, [_row(release) for release in response.releases], more)


def _row(release: Release) -> tuple[object, ...]:
    created = release.create_time.ToDatetime().isoformat(sep=" ", timespec="seconds")
    size = sum(part.size_bytes for part in release.parts) / 2**20
    recall = release.metrics.get("recall_at_20", "")
    return (release.release, created, release.space, release.delta_sequence, release.log_offset, size, recall)
