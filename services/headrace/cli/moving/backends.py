"""Where the log and the SQL states of a suite are, by its settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from headrace.ingest.ledger import metadata as catalogue_tables
from headrace.ingest.settings import IngestSettings
from headrace.ingest.storage import MIGRATIONS as CATALOGUE_MIGRATIONS
from headrace.ingest.storage import catalogue_url
from headrace.runtime.settings import CommonSettings, load
from headrace.trainer.registry import MIGRATIONS as REGISTRY_MIGRATIONS
from headrace.trainer.registry import registry_url
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.tables import Base


@dataclass(frozen=True, slots=True)
class SqlState:
    """One database with its tables and migrations; `url` is SQLAlchemy's."""

    name: str
    url: str
    metadata: sa.MetaData
    migrations: Path

    @property
    def is_begun(self) -> bool:
        """Whether there is anything; a server's database is taken to be there."""
        return self._file is None or self._file.is_file()

    def make_room(self) -> None:
        """Makes the folder of a file."""
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)

    @property
    def _file(self) -> Path | None:
        url = sa.make_url(self.url)
        return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


@dataclass(frozen=True, slots=True)
class Backends:
    """The log's settings, the catalogue and the registry."""

    common: CommonSettings
    catalogue: SqlState
    registry: SqlState

    @property
    def sql_states(self) -> tuple[SqlState, SqlState]:
        return self.catalogue, self.registry


def backends(data_dir: Path, *, event_log: str = "", catalogue: str = "", registry: str = "") -> Backends:
    """Backends at URLs; those that are empty are files in `data_dir`."""
    catalogue = catalogue_url(catalogue, data_dir / "ingest")
    return Backends(
        load(CommonSettings).model_copy(update={"data_dir": data_dir, "event_log_url": event_log}),
        SqlState("catalogue", catalogue, catalogue_tables, CATALOGUE_MIGRATIONS),
        SqlState("registry", registry_url(registry, data_dir / "trainer"), Base.metadata, REGISTRY_MIGRATIONS),
    )


def configured(data_dir: Path) -> Backends:
    """The backends that services with this environment use."""
    return backends(
        data_dir,
        event_log=load(CommonSettings).event_log_url,
        catalogue=load(IngestSettings).database_url,
        registry=load(TrainerSettings).registry_url,
    )
