"""`kubectl headrace`: the same commands, asked of a suite that runs in a cluster.

kubectl runs any executable `kubectl-headrace` on the path as a plugin. The services are reached by
`kubectl port-forward`, so whoever may do that in the namespace needs nothing more.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer

from headrace.cli.options import told
from headrace.runtime.errors import UnavailableError

# what a service is called in the manifests, and its port
_SERVICES = {
    "trainer": ("registry", 7403),
    "ingest": ("ingest", 7401),
    "feature-store": ("feature-store", 7402),
    "index": ("index", 7404),
    "ranker": ("ranker", 7405),
}
# these ask the registry alone
_OF_REGISTRY = ("rollout", "releases")
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")

plugin = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@plugin.command(
    no_args_is_help=True,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True, "allow_extra_args": True},
)
@told
def headrace(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="A command of `headrace`, such as rollout status.")
    ],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where the suite runs.", show_default=False)] = "",
    context: Annotated[str, typer.Option(help="Of the kubeconfig.", show_default=False)] = "",
    kubeconfig: Annotated[str, typer.Option(help="Another file than kubectl's own.", show_default=False)] = "",
) -> None:
    """Run a command of `headrace` against the suite in a cluster.

    \b
    Examples:
      kubectl headrace rollout status
      kubectl headrace -n shop rollout undo --reason "cart rate fell"
      kubectl headrace -n shop status
    """
    from headrace.cli.main import app

    if "--help" in command:
        app(command, prog_name="kubectl headrace")
    options = _options(namespace, context, kubeconfig)
    wanted = ("trainer",) if command[0] in _OF_REGISTRY else tuple(_SERVICES)
    with ExitStack() as stack:
        addresses = [f"{service}={stack.enter_context(forwarded(service, options))}" for service in wanted]
        given = [word for address in addresses for word in ("--address", address)]
        app([*command, *given], prog_name="kubectl headrace")


@contextmanager
def forwarded(service: str, options: Sequence[str]) -> Iterator[str]:
    """host:port on this machine that leads to a service of the cluster while open. UnavailableError: kubectl's word."""
    name, port = _SERVICES[service]
    command = ["kubectl", *options, "port-forward", f"service/{name}", f":{port}"]
    with _running(command) as process:
        yield f"127.0.0.1:{_local_port(process, command)}"


@contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise UnavailableError("kubectl is not on the path") from error
    with process:
        try:
            yield process
        finally:
            process.terminate()


def _local_port(process: subprocess.Popen[str], command: Sequence[str]) -> int:
    for line in process.stdout or ():
        if found := _FORWARDING.match(line):
            return int(found[1])
    # its last line says what is wrong; those before are its attempts
    said = (process.stderr.read() if process.stderr else "").strip().splitlines()
    raise UnavailableError(f"{' '.join(command)}: {said[-1] if said else f'it ended with {process.wait()}'}")


def _options(namespace: str, context: str, kubeconfig: str) -> list[str]:
    given = {"--namespace": namespace, "--context": context, "--kubeconfig": kubeconfig}
    return [word for option, value in given.items() if value for word in (option, value)]


def main() -> None:
    """The console script that kubectl finds."""
    plugin(prog_name="kubectl headrace")


if __name__ == "__main__":
    main()
