"""What a deployment may change about the door."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import AwareDatetime, Field
from pydantic_settings import SettingsConfigDict

from headrace.runtime.settings import ServingSettings


class IngestSettings(ServingSettings):
    """Read from `HEADRACE_INGEST_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_INGEST_", frozen=True)

    port: int = Field(7401, ge=0, le=65535, description="port to listen on; 0 chooses a free one")
    database_url: str = Field(
        "", description="SQLAlchemy URL of the catalogue; empty: a SQLite file in the data folder"
    )
    max_future_skew_s: float = Field(60.0, ge=0, description="how far ahead of this clock an event's time may be")
    min_event_time: AwareDatetime = Field(
        datetime(2000, 1, 1, tzinfo=UTC), description="events before this time are refused"
    )
    bot_events_per_minute: int = Field(
        600, ge=1, description="product events of one visitor in one minute of event time; purchases do not count"
    )
    bot_views: int = Field(
        100, ge=0, description="views in a row, without a cart or a purchase, that are looked at for a pattern; 0: none"
    )
    bot_views_per_minute: int = Field(40, ge=1, description="so many views a minute, `bot_views` long, are no person's")
    bot_refusal_minutes: float = Field(
        60.0, ge=0, description="event time for which all but purchases of a visitor is refused once judged a bot"
    )
    repeat_window_ms: int = Field(
        300, ge=0, description="the same act of a person again within this time is a double click; 0: no such rule"
    )
    outlier_score: float = Field(
        6.0, ge=0, description="robust z-score above which a price or quantity is refused; 0: no such rule"
    )
    require_event_ids: bool = Field(
        False, description="refuses events without an event_id; else it is derived from all other fields"
    )
    remembered_records: int = Field(
        20_000, ge=0, description="newest log records from which the rules' memory is rebuilt at a start"
    )
    cancel_window_records: int = Field(
        200_000, ge=0, description="newest log records among which a cancelled purchase is looked for"
    )
    token_days: float = Field(
        30.0, gt=0, description="days after an answer for which its attribution token earns credit"
    )
    dead_letter_days: float = Field(30.0, gt=0, description="days for which a refused event is kept")
    forget_consumers: str = Field(
        "feature-store,trainer", description="who must say that a person is forgotten, separated by commas"
    )
    forget_deadline_s: float = Field(60.0, gt=0, description="seconds that they get; what is missing then is pending")
    forget_settle_s: float = Field(
        1.0, ge=0, description="seconds until all replicas of the door know who is forgotten; they look twice as often"
    )
    max_unacknowledged: int = Field(4_096, ge=1, description="events of one stream that may wait for their answer")
    stream_batch_events: int = Field(500, ge=1, description="events of a stream that are written at once")
    max_waiting_records: int = Field(50_000, ge=1, description="records that may wait for the log; more is refused")
