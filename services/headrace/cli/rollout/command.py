"""The commands of `headrace rollout`."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from headrace.cli.client import Client
    from headrace.v1.trainer_pb2 import Rollout

rollout = typer.Typer(
    no_args_is_help=True,
    help="How releases come to serve: gates, canary, promotion, and the way back.",
)

Name = Annotated[str, typer.Argument(metavar="[ROLLOUT]", help="Such as ro-000007; the one that runs when left out.")]
Reason = Annotated[str, typer.Option(help="Kept in the history.", show_default=False)]
Size = Annotated[int, typer.Option(min=1, max=1000, help="How many.")]
PageToken = Annotated[str, typer.Option(help="From the page before.", show_default=False)]


@rollout.command()
@told
def status(
    name: Name = "",
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every second until it ends.")] = False,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Show where a rollout stands, what its gates found and how the arms compare.

    Exit 1 when it was rolled back, 3 when it is inconclusive.

    \b
    Examples:
      headrace rollout status
      headrace rollout status ro-000007 --watch
      headrace rollout status --json
    """
    from headrace.cli.rollout.screen import exit_status, show, watched
    from headrace.v1.trainer_pb2 import GetRolloutRequest

    def asked() -> Rollout:
        found: Rollout = _ask(data_dir, address, "GetRollout", GetRolloutRequest(rollout=name)).found
        return found

    if watch and not as_json:
        found = watched(asked)
    else:
        found = asked()
        show(found, as_json)
    if code := exit_status(found):
        raise typer.Exit(code)


@rollout.command("list")
@told
def list_rollouts(
    size: Size = 20,
    page_token: PageToken = "",
    increments: Annotated[
        bool, typer.Option("--increments", help="Those of the lineage that serves too; they come by the hundred a day.")
    ] = False,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """List rollouts, newest first.

    \b
    Examples:
      headrace rollout list
      headrace rollout list --increments --size 5
    """
    from headrace.cli.rollout.screen import show_list
    from headrace.v1.trainer_pb2 import ListRolloutsRequest

    request = ListRolloutsRequest(page_size=size, page_token=page_token, with_increments=increments)
    show_list(_ask(data_dir, address, "ListRollouts", request), as_json)


@rollout.command()
@told
def history(
    name: Annotated[str, typer.Argument(metavar="[ROLLOUT]", help="Such as ro-000007; all when left out.")] = "",
    size: Size = 50,
    page_token: PageToken = "",
    evidence: Annotated[bool, typer.Option("--evidence", help="Show what each decision was made from too.")] = False,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Show every transition, who made it and why.

    \b
    Examples:
      headrace rollout history ro-000007
      headrace rollout history --evidence --json
    """
    from headrace.cli.rollout.screen import show_history
    from headrace.v1.trainer_pb2 import GetRolloutHistoryRequest

    request = GetRolloutHistoryRequest(rollout=name, page_size=size, page_token=page_token)
    show_history(_ask(data_dir, address, "GetRolloutHistory", request), evidence, as_json)


@rollout.command()
@told
def start(
    release: Annotated[str, typer.Argument(metavar="[RELEASE]", help="Such as r-000042.")] = "",
    lineage: Annotated[
        str, typer.Option(help="Instead of a release: the newest one of this lineage.", show_default=False)
    ] = "",
    steps: Annotated[
        str, typer.Option(help="Shares of people in percent, such as 1,10,50; as configured when left out.")
    ] = "",
    supersede: Annotated[bool, typer.Option("--supersede", help="End another lineage's rollout that runs.")] = False,
    reason: Reason = "",
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Begin the rollout of a release, or of a lineage that goes on learning meanwhile.

    \b
    Examples:
      headrace rollout start --lineage wide --steps 1,10,50
      headrace rollout start r-000042 --reason "new text encoder"
    """
    from headrace.cli.rollout.screen import show
    from headrace.cli.rollout.steps import steps_bp
    from headrace.runtime.errors import InvalidRequestError
    from headrace.v1.trainer_pb2 import CreateRolloutRequest

    if bool(release) == bool(lineage):
        raise InvalidRequestError.of("RELEASE, --lineage", "name one of the two")
    request = CreateRolloutRequest(
        release=release,
        lineage=lineage,
        steps_bp=steps_bp(steps),
        supersede=supersede,
        actor=_actor(),
        reason=reason,
    )
    show(_ask(data_dir, address, "CreateRollout", request).created, as_json)


@rollout.command()
@told
def promote(
    name: Name = "",
    reason: Reason = "",
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Promote the candidate now, whatever the evidence says so far.

    \b
    Example:
      headrace rollout promote --reason "the sale begins at noon"
    """
    from headrace.v1.trainer_pb2 import PromoteRolloutRequest

    _steer(data_dir, address, "PromoteRollout", PromoteRolloutRequest(rollout=name), reason, as_json)


@rollout.command()
@told
def abort(
    name: Name = "",
    reason: Reason = "",
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Roll the candidate back: everybody is answered by the stable release at once.

    \b
    Example:
      headrace rollout abort --reason "prices look wrong"
    """
    from headrace.v1.trainer_pb2 import AbortRolloutRequest

    _steer(data_dir, address, "AbortRollout", AbortRolloutRequest(rollout=name), reason, as_json)


@rollout.command()
@told
def pause(
    name: Name = "",
    reason: Reason = "",
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Hold the rollout at its present share; guardrails still roll it back.

    \b
    Example:
      headrace rollout pause --reason "on call handover"
    """
    from headrace.v1.trainer_pb2 import PauseRolloutRequest

    _steer(data_dir, address, "PauseRollout", PauseRolloutRequest(rollout=name), reason, as_json)


@rollout.command()
@told
def resume(
    name: Name = "",
    reason: Reason = "",
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Go on with a rollout that was paused.

    \b
    Example:
      headrace rollout resume
    """
    from headrace.v1.trainer_pb2 import ResumeRolloutRequest

    _steer(data_dir, address, "ResumeRollout", ResumeRolloutRequest(rollout=name), reason, as_json)


@rollout.command()
@told
def undo(
    to: Annotated[
        str, typer.Option("--to", help="A kept release; the one that served before when left out.", show_default=False)
    ] = "",
    reason: Reason = "",
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Serve an earlier release again: its vectors, weights and features together.

    `headrace releases` lists those that are kept.

    \b
    Examples:
      headrace rollout undo
      headrace rollout undo --to r-000042 --reason "cart rate fell"
    """
    from headrace.cli.output import as_dict, print_facts, print_json
    from headrace.v1.trainer_pb2 import UndoRolloutRequest

    request = UndoRolloutRequest(release=to, actor=_actor(), reason=reason)
    answer = _ask(data_dir, address, "UndoRollout", request)
    if as_json:
        print_json(as_dict(answer))
    else:
        print_facts({"stable": answer.stable.release, "lineage": answer.stable.lineage, "plan": answer.plan_sequence})


def _steer(data_dir: Any, address: list[str], method: str, request: Any, reason: str, as_json: bool) -> None:
    from headrace.cli.rollout.screen import show

    request.actor, request.reason = _actor(), reason
    steered: Rollout = _ask(data_dir, address, method, request).rollout
    show(steered, as_json)


def _ask(data_dir: Any, address: list[str], method: str, request: Message) -> Any:
    # `Any`: one function for eight methods, whose answers have nothing in common
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask

    async def conversation(client: Client) -> Any:
        return await getattr(client.trainer, method)(request, timeout=CALL_TIMEOUT_S)

    return ask(data_dir, address, conversation)


def _actor() -> str:
    """Who asks, for the history."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # a container's user may have no name
        return "cli"
