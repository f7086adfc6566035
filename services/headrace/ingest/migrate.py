"""Makes or updates the tables of event log and catalogue, and ends: `python -m headrace.ingest.migrate`.

Every process of the door does it too when it starts; done before, new pods find it done.
"""

from __future__ import annotations

import asyncio
import sys

from headrace.ingest.settings import IngestSettings
from headrace.ingest.storage import open_store
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.serving import told
from headrace.runtime.settings import CommonSettings, load


async def migrate(settings: IngestSettings, common: CommonSettings) -> None:
    """Brings the tables up to date, and leaves those that are. UnavailableError: a database is away."""
    log = open_event_log(common)
    try:
        # its tables are made by the first who asks for anything
        await log.end()
    finally:
        await log.close()
    store = open_store(settings.database_url, common.data_dir / "ingest")
    try:
        await store.migrate()
    finally:
        await store.close()


def main() -> int:
    """0 when the tables are up to date; 2 and why when they can't be."""
    return told("ingest migrations", _run)


def _run() -> int:
    asyncio.run(migrate(load(IngestSettings), load(CommonSettings)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
