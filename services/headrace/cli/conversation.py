"""Runs a conversation with a suite to its end, and tells a failed call in a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import grpc

from headrace.cli.client import Client
from headrace.cli.settings import CliSettings
from headrace.cli.suite_file import addresses
from headrace.runtime.errors import Fault, HeadraceError, InvalidRequestError, NotFoundError, UnavailableError
from headrace.runtime.rpc_status import faults_of
from headrace.runtime.settings import CommonSettings, load
from headrace.runtime.tls import tls_files

T = TypeVar("T")

CALL_TIMEOUT_S = 30.0


def ask(data_dir: Path, given: list[str], conversation: Callable[[Client], Awaitable[T]]) -> T:
    """What `conversation` answers, held with the suite of `data_dir` or at the given addresses.

    InvalidRequestError, NotFoundError, UnavailableError or HeadraceError say what a service answered instead.
    """
    return asyncio.run(_hold(addresses(data_dir, given), conversation))


def client_of(known: Mapping[str, str]) -> Client:
    """A client that shows the certificate and the key that the environment names. SettingsError."""
    return Client(known, tls_files(load(CommonSettings)), load(CliSettings).api_key)


async def _hold(known: dict[str, str], conversation: Callable[[Client], Awaitable[T]]) -> T:
    async with client_of(known) as client:
        try:
            return await conversation(client)
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error


def error_of(error: grpc.aio.AioRpcError) -> HeadraceError:
    """The named error behind a failed call."""
    details = error.details() or "no details"
    if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequestError(faults_of(error) or (Fault("request", details),))
    if error.code() == grpc.StatusCode.NOT_FOUND:
        return NotFoundError(details)
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return UnavailableError(f"the service did not answer ({details}); `headrace status` shows which are up")
    return HeadraceError(f"the service answered {error.code().name}: {details}")
