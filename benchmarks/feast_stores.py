"""Feast (PyPI) as its documentation sets it up: a local registry, Parquet files, SQLite or Redis online."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

# it would look for its maker's server
os.environ.setdefault("FEAST_USAGE", "False")

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.repo_config import RepoConfig
from feast.types import Float32

FOR_EVER = timedelta(days=3650)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FeastStore:
    """One repository with a feature view a table; `online` is Feast's own setting of the online store."""

    def __init__(self, folder: Path, online: Mapping[str, str], tables: Mapping[str, pd.DataFrame]) -> None:
        """`tables` by entity: its key in the column `<entity>_id`, its time in `event_time`, features beside."""
        folder.mkdir(parents=True)
        config = RepoConfig(
            project="headrace",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store=dict(online),
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
        self._store = FeatureStore(config=config)
        self._features = {name: _feature_names(name, table) for name, table in tables.items()}
        self._store.apply([part for name, table in tables.items() for part in _definitions(folder, name, table)])

    def fill_online(self, tables: Mapping[str, pd.DataFrame]) -> None:
        for name, table in tables.items():
            self._store.write_to_online_store(name, df=table)

    def online(self, entity: str, keys: Sequence[int]) -> dict[str, list[Any]]:
        """All features of some keys, by feature: each with its value or None."""
        names = [f"{entity}:{feature}" for feature in self._features[entity]]
        rows = {f"{entity}_id": list(keys)}
        return self._store.get_online_features(features=names, entity_rows=rows).to_dict()

    def historical(self, entity: str, labels: pd.DataFrame) -> pd.DataFrame:
        """The labels with the features that their entity had then."""
        names = [f"{entity}:{feature}" for feature in self._features[entity]]
        return self._store.get_historical_features(entity_df=labels, features=names).to_df()


def _feature_names(entity: str, table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name not in (f"{entity}_id", "event_timestamp")]


def _definitions(folder: Path, name: str, table: pd.DataFrame) -> tuple[Entity, FeatureView]:
    path = folder / f"{name}.parquet"
    table.to_parquet(path)
    entity = Entity(name=f"{name}_entity", join_keys=[f"{name}_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name=name,
        entities=[entity],
        ttl=FOR_EVER,
        schema=[Field(name=feature, dtype=Float32) for feature in _feature_names(name, table)],
        source=FileSource(path=str(path), timestamp_field="event_timestamp"),
    )
    return entity, view
