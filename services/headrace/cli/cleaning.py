"""`headrace cleaning`: the rules that the door holds events against, and what each of them met."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.v1.ingest_pb2 import CleaningRule, GetIngestStatusResponse


@told
def cleaning(data_dir: DataDir = DATA_DIR, address: Address = [], as_json: Json = False) -> None:  # noqa: B006
    """Show the rules of cleaning as they are at the door, and how many events each refused or marked.

    Counts are since the door started; `headrace status` has them by channel.

    \b
    Examples:
      headrace cleaning
      headrace cleaning --json
    """
    from headrace.cli.conversation import CALL_TIMEOUT_S, ask
    from headrace.cli.output import as_dict, print_json, print_table
    from headrace.v1.ingest_pb2 import GetIngestStatusRequest

    async def conversation(client: Client) -> GetIngestStatusResponse:
        return await client.ingest.GetIngestStatus(GetIngestStatusRequest(), timeout=CALL_TIMEOUT_S)

    door = ask(data_dir, address, conversation)
    if as_json:
        answer = as_dict(door)
        print_json({name: answer[name] for name in ("rules", "rule_counts")})
        return
    columns = ("rule", "does", "events", "looks at", "what", "settings")
    print_table("Rules of cleaning", columns, [_row(rule, door) for rule in door.rules])


def _row(rule: CleaningRule, door: GetIngestStatusResponse) -> tuple[object, ...]:
    from headrace.v1.ingest_pb2 import CleaningRule

    does = CleaningRule.Action.Name(rule.action).removeprefix("ACTION_").lower()
    met = sum(count.events for count in door.rule_counts if count.rule == rule.name)
    settings = ", ".join(f"{name}={value}" for name, value in sorted(rule.settings.items()))
    return rule.name, does, met, rule.looks_at, rule.description, settings
