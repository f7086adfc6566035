"""`headrace identity`: which devices are one person's, and how to change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.v1.feature_store_pb2 import GetUserStateResponse

identity = typer.Typer(
    no_args_is_help=True,
    help="Devices that are one person's: joined by log-ins, shown, joined and split by hand.",
)

Visitor = Annotated[str, typer.Option(help="The device: a visitor_id.", show_default=False)]
User = Annotated[str, typer.Option(help="The person: a user_id.", show_default=False)]


@identity.command()
@told
def show(
    visitor: Visitor = "",
    user: User = "",
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Show the person behind a device, and the devices of a person.

    \b
    Examples:
      headrace identity show --visitor phone-7
      headrace identity show --user ann --json
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.runtime.errors import InvalidRequestError
    from headrace.v1.feature_store_pb2 import GetUserStateRequest

    if bool(visitor) == bool(user):
        raise InvalidRequestError.of("--visitor, --user", "name one of the two")

    async def conversation(client: Client) -> GetUserStateResponse:
        key = f"u:{user}" if user else f"v:{visitor}"
        return await client.feature_store.GetUserState(GetUserStateRequest(user_key=key), timeout=CALL_TIMEOUT_S)

    _print(ask(data_dir, address, conversation), as_json)


@identity.command()
@told
def join(
    visitor: Visitor,
    user: User,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Join a device to a person, as a log-in would; also where they were split before.

    \b
    Example:
      headrace identity join --visitor phone-7 --user ann
    """
    _change(visitor, user, "CHANGE_JOIN", data_dir, address, as_json)


@identity.command()
@told
def split(
    visitor: Visitor,
    user: User,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Take a device and a person apart; later log-ins do not join them again.

    Both are then exactly what they would be had they never been joined.

    \b
    Example:
      headrace identity split --visitor phone-7 --user ann
    """
    _change(visitor, user, "CHANGE_SPLIT", data_dir, address, as_json)


def _change(visitor: str, user: str, change: str, data_dir: DataDir, address: Address, as_json: bool) -> None:
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.v1.feature_store_pb2 import GetUserStateRequest
    from headrace.v1.ingest_pb2 import ChangeIdentityRequest

    async def conversation(client: Client) -> GetUserStateResponse:
        request = ChangeIdentityRequest(
            visitor_id=visitor, user_id=user, change=ChangeIdentityRequest.Change.Value(change)
        )
        offset = (await client.ingest.ChangeIdentity(request, timeout=CALL_TIMEOUT_S)).offset
        ours = GetUserStateRequest(user_key=f"u:{user}", min_offset=offset)
        return await client.feature_store.GetUserState(ours, timeout=CALL_TIMEOUT_S)

    _print(ask(data_dir, address, conversation), as_json)


def _print(state: GetUserStateResponse, as_json: bool) -> None:
    from headrace.cli.output import print_facts, print_json

    facts = {
        "person": state.person_key,
        "devices": list(state.device_keys),
        "events": len(state.history.event_types),
        "offset": state.offset,
    }
    if as_json:
        print_json(facts)
    else:
        print_facts({**facts, "devices": ", ".join(state.device_keys) or "none"})
