"""`headrace forget`: erases a person everywhere, checks the receipt, and looks for what is left."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told
from headrace.runtime.errors import HeadraceError, InvalidRequestError

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.cli.forgetting.search import Search
    from headrace.runtime.settings import CommonSettings
    from headrace.v1.ingest_pb2 import ForgetUserRequest, ForgetUserResponse

# the consumers' time and the door's own, and then some
_TIMEOUT_S = 300.0


@told
def forget(
    user: Annotated[str, typer.Option(help="Whom: the id by which they log in.", show_default=False)] = "",
    visitor: Annotated[str, typer.Option(help="A device of theirs, or a device alone.", show_default=False)] = "",
    shared: Annotated[
        bool, typer.Option("--include-shared-devices", help="Devices too on which somebody else logged in.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Search every store and file for the ids; erase nothing.")
    ] = False,
    check: Annotated[
        Path | None, typer.Option(help="Check the signature of this receipt; erase nothing.", show_default=False)
    ] = None,
    public_key: Annotated[
        str, typer.Option(help="Hex, to check by; else the data folder's own.", show_default=False)
    ] = "",
    receipt: Annotated[Path | None, typer.Option(help="Write the receipt here.", show_default=False)] = None,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Erase a person everywhere, with a signed receipt.

    Asked again, it goes on where it stands. Exit 1 when something is pending,
    when --verify finds something, or when --check refuses the receipt.

    \b
    Examples:
      headrace forget --user 4711 --receipt 4711.json
      headrace forget --user 4711 --verify
      headrace forget --check 4711.json
    """
    if check is not None:
        _print_receipt(_checked(check, public_key, data_dir), as_json)
        return
    if not (user or visitor):
        raise InvalidRequestError.of("forget", "say --user or --visitor, or --check a receipt")
    if verify:
        is_clean = _print_search(_searched(data_dir, user, visitor), as_json)
    else:
        from headrace.v1.ingest_pb2 import ForgetUserRequest

        request = ForgetUserRequest(user_id=user, visitor_id=visitor, include_shared_devices=shared)
        is_clean = _forgotten(request, data_dir, address, receipt, as_json)
    raise typer.Exit(0 if is_clean else 1)


def _forgotten(
    request: ForgetUserRequest, data_dir: Path, address: list[str], receipt: Path | None, as_json: bool
) -> bool:
    from headrace.cli.conversation import ask
    from headrace.runtime.atomic import write_atomically

    async def conversation(client: Client) -> ForgetUserResponse:
        return await client.ingest.ForgetUser(request, timeout=_TIMEOUT_S)

    response = ask(data_dir, address, conversation)
    if receipt is not None:
        write_atomically(receipt, response.receipt)
    _print_receipt(json.loads(response.receipt), as_json)
    return response.complete


def _common(data_dir: Path) -> CommonSettings:
    from headrace.runtime.settings import CommonSettings, SettingsError, load

    try:
        return load(CommonSettings).model_copy(update={"data_dir": data_dir})
    except SettingsError as error:
        raise InvalidRequestError.of("environment", str(error)) from error


def _checked(path: Path, public_key: str, data_dir: Path) -> dict[str, Any]:
    from headrace.ingest.receipts import Signer, checked
    from headrace.runtime.privacy import open_privacy

    if public_key:
        try:
            key = bytes.fromhex(public_key)
        except ValueError as error:
            raise InvalidRequestError.of("--public-key", f"must be hex, got {public_key!r}") from error
    else:
        key = Signer(open_privacy(_common(data_dir), must_exist=True)).public_key
    try:
        return checked(path.read_bytes(), key)
    except FileNotFoundError as error:
        raise InvalidRequestError.of("--check", f"there is no file {path}") from error
    except InvalidRequestError as error:
        # no fault of the caller's: it is what was asked
        raise HeadraceError(str(error)) from error


def _searched(data_dir: Path, user: str, visitor: str) -> Search:
    from headrace.cli.forgetting.search import search

    return asyncio.run(search(_common(data_dir), user, visitor))


def _print_receipt(receipt: dict[str, Any], as_json: bool) -> None:
    from headrace.cli.output import print_facts, print_json, print_table

    if as_json:
        print_json(receipt)
        return
    print_facts({"erasure": receipt["erasure_id"], "signed by key": receipt["public_key_id"]})
    rows = [(store, what, count) for store, counts in receipt["erased"].items() for what, count in counts.items()]
    print_table("Erased", ("store", "what", "count"), rows)
    facts = {"pending " + name: reason for name, reason in receipt["pending"].items()}
    print_facts(facts | {"kept": f"{len(receipt['shared_devices_kept'])} devices that others use too"})
    for line in receipt["not_erased"]:
        typer.echo(f"not erased: {line}")


def _print_search(searched: Search, as_json: bool) -> bool:
    from dataclasses import asdict

    from headrace.cli.output import print_json, print_table

    if as_json:
        print_json(asdict(searched))
    elif searched.found:
        rows = [(found.place, found.count) for found in searched.found]
        print_table("Found", ("place", "count"), rows)
    else:
        typer.echo(f"found nothing in {', '.join(searched.places)} ({searched.files} files)")
    return not searched.found
