"""Says that a state begins on a log that has forgotten its beginning."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from headrace.runtime.eventlog.log import LoggedRecord

log = logging.getLogger(__name__)


def note_late_start(after_offset: int, records: Sequence[LoggedRecord]) -> None:
    """Warns when a state that begins now cannot know the oldest records, because they were trimmed away."""
    if after_offset == 0 and records and records[0].offset > 1:
        log.warning("log_begins_late", extra={"oldest_offset": records[0].offset})
