"""Dead letters listed, mended and replayed by the command, against a door of its own process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from headrace.cli.main import app
from headrace.cli.suite import Suite
from headrace.runtime.channels import open_channel
from headrace.v1.common_pb2 import ProductDetail, UserEvent
from headrace.v1.ingest_pb2 import WriteUserEventsRequest
from headrace.v1.ingest_pb2_grpc import IngestServiceStub


def broken(number: int) -> UserEvent:
    return UserEvent(
        event_type="add-to-cart",
        visitor_id="v",
        event_time=Timestamp(seconds=1_500_000_000 + number),
        product_details=[ProductDetail(product_id="p", price=-1.0)],
    )


async def test_letters_are_exported_mended_imported_and_fixed(tmp_path: Path) -> None:
    async with Suite(tmp_path / "suite", services=("ingest",)) as suite:
        address = suite.addresses["ingest"]
        async with open_channel(address) as channel:
            events = [broken(number) for number in range(3)]
            await IngestServiceStub(channel).WriteUserEvents(WriteUserEventsRequest(events=events))

        async def told(*command: str) -> str:
            arguments = [*command, "--address", f"ingest={address}"]
            result = await asyncio.to_thread(CliRunner().invoke, app, arguments, catch_exceptions=False)
            assert result.exit_code == 0, result.output
            return result.output

        file = tmp_path / "letters.jsonl"
        await told("deadletters", "export", str(file))
        first, *_ = lines = file.read_text().splitlines()
        assert [json.loads(line)["reason"] for line in lines] == ["price"] * 3
        # one of them is mended, one is left out, one stays as it was
        file.write_text(first.replace("-1.0", "9.5") + "\n" + lines[1] + "\n")
        done = json.loads(await told("deadletters", "import", str(file), "--json"))
        assert (done["replayed"], done["accepted"], done["still_rejected"]) == ("2", "1", "1")
        fixed = str(json.loads(lines[2])["id"])
        await told("deadletters", "fix", fixed, "--set", "product_details.0.price=9.5")
        left = json.loads(await told("deadletters", "list", "--json"))["dead_letters"]
        assert [letter["id"] for letter in left] == [str(json.loads(lines[1])["id"])]
        rules = json.loads(await told("cleaning", "--json"))
        assert [count["rule"] for count in rules["rule_counts"]] == ["price"]
        assert "bot-pattern" in await told("cleaning")
