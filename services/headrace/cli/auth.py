"""`headrace auth`: keys of tenants, and the pair of keys by which releases are signed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import Json, moment, told

auth = typer.Typer(help="Keys: for those who call, and for releases.", no_args_is_help=True)


@auth.command("new-key")
@told
def new_key(
    tenant: Annotated[str, typer.Argument(help="Whose key it is, as in the file of tenants.")],
    key_id: Annotated[str, typer.Option("--id", help="What the key is called.")] = "key-1",
    expires: Annotated[
        str | None,
        typer.Option(help="Last day of the key, such as 2027-03-31; never, unless given.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an API key: it is shown once, and its entry for the file of tenants holds only its hash.

    \b
    Example:
      headrace auth new-key shop --id web-2026 --expires 2027-03-31
    """
    import json

    from pydantic import TypeAdapter, ValidationError

    from headrace.runtime.errors import InvalidRequestError
    from headrace.runtime.tenants import Name, entry_of, new_api_key

    for option, value in (("tenant", tenant), ("--id", key_id)):
        try:
            TypeAdapter(Name).validate_python(value)
        except ValidationError as error:
            raise InvalidRequestError.of(option, f"must be of a-z, 0-9, '.', '_' and '-', got {value!r}") from error
    key = new_api_key()
    entry = entry_of(tenant, key_id, key, moment(expires, "--expires"))
    if as_json:
        typer.echo(json.dumps({"key": key, "entry": entry}))
        return
    typer.echo(
        f"The key, shown this once:\n\n{key}\n\nInto the file of HEADRACE_<SERVICE>_AUTH_FILE:\n\n{entry}", nl=False
    )


@auth.command("new-release-key")
@told
def new_release_key(
    folder: Annotated[Path, typer.Argument(help="Where the two files are written; they must not be there yet.")],
    as_json: Json = False,
) -> None:
    """Make the pair of keys by which learners sign releases and rankers check them.

    \b
    Example:
      headrace auth new-release-key /etc/headrace
    """
    import json

    from headrace.runtime.errors import AlreadyExistsError
    from headrace.runtime.release_signing import new_pair

    private_path, public_path = folder / "release-signing.pem", folder / "release-verify.pem"
    folder.mkdir(parents=True, exist_ok=True)
    for path in (private_path, public_path):
        if path.exists():
            raise AlreadyExistsError(f"{path} is there already: releases signed by it would be trusted no more")
    private, public = new_pair()
    _write(private_path, private, 0o600)
    _write(public_path, public, 0o644)
    if as_json:
        typer.echo(json.dumps({"signing": str(private_path), "verify": str(public_path)}))
        return
    typer.echo(
        f"HEADRACE_RELEASE_SIGNING_KEY_FILE={private_path}   for the learners alone\n"
        f"HEADRACE_RELEASE_VERIFY_KEY_FILE={public_path}   for rankers and the registry"
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
