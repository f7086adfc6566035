"""Settings from the environment: typed, documented, and strict about names it does not know."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from headrace.runtime.errors import SettingsError as SettingsError
from headrace.runtime.eventlog.kafka_url import FORM as KAFKA_FORM
from headrace.runtime.eventlog.kafka_url import SCHEME as KAFKA
from headrace.runtime.eventlog.kafka_url import kafka_url

PREFIX = "HEADRACE_"
EVENT_LOG_SCHEMES = ("postgresql://", "postgres://", KAFKA)
# never shown, also where they are wrong
_SECRETS = ("privacy_key", "api_key")
# what variables may begin with: services, and parts of them with settings of their own
SERVICES = ("ingest", "feature-store", "trainer", "rollout", "index", "ranker", "cli")


class Given(BaseSettings):
    """Settings that come from `load` alone."""

    # only `load` reads the environment, and only the one that it is given
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,
        **more: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


class CommonSettings(Given):
    """What every process may be told."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    data_dir: Path = Field(Path(".headrace"), description="where embedded backends keep their files")
    event_log_url: str = Field("", description=f"event log: postgresql://… or {KAFKA_FORM}; empty: a SQLite file")
    event_log_retention_days: float = Field(
        0.0,
        ge=0,
        description="days that records and their event ids are kept, longer than any reader is away; 0: for ever",
    )
    privacy_key: str = Field(
        "", repr=False, description="secret of the hashes that stand for people, 16 characters or more; empty: a file"
    )
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    otlp_endpoint: str = Field("", description="OTLP/gRPC receiver, such as http://collector:4317; empty: none")
    trace_ratio: float = Field(1.0, ge=0, le=1, description="share of new traces that are kept")
    telemetry_interval_s: float = Field(5.0, gt=0, description="seconds between exports")
    data: Path | None = Field(None, description="folder of the data sets, for the demo and the benchmarks")
    tls_cert: Path | None = Field(
        None, description="this process's certificate, PEM; with key and authority: mutual TLS"
    )
    tls_key: Path | None = Field(None, description="the key of that certificate, PEM")
    tls_ca: Path | None = Field(
        None, validate_default=True, description="the suite's own certificate authority, PEM; it is trusted alone"
    )
    release_signing_key_file: Path | None = Field(
        None, description="Ed25519 key, PEM, by which the trainer signs releases; empty: they are not signed"
    )
    release_verify_key_file: Path | None = Field(
        None, description="its public half, PEM: releases that it does not vouch for are not loaded; empty: not asked"
    )

    @field_validator("event_log_url")
    @classmethod
    def _is_known_log(cls, url: str) -> str:
        if url and not url.startswith(EVENT_LOG_SCHEMES):
            raise ValueError(f"must be empty or begin with {' or '.join(EVENT_LOG_SCHEMES)}")
        if url.startswith(KAFKA):
            kafka_url(url)
        return url

    @field_validator("tls_ca")
    @classmethod
    def _is_whole(cls, ca: Path | None, info: ValidationInfo) -> Path | None:
        files = {"TLS_CERT": info.data.get("tls_cert"), "TLS_KEY": info.data.get("tls_key"), "TLS_CA": ca}
        given = [PREFIX + name for name, path in files.items() if path is not None]
        missing = [PREFIX + name for name, path in files.items() if path is None]
        if given and missing:
            raise ValueError(f"{' and '.join(missing)} must be given where {' and '.join(given)} is")
        return ca

    @field_validator("privacy_key")
    @classmethod
    def _is_long_enough(cls, key: str) -> str:
        if key and len(key) < 16:
            raise ValueError("must be empty or have at least 16 characters")
        return key


class ServingSettings(Given):
    """How a service listens. Services add their own fields in a subclass."""

    model_config = SettingsConfigDict(frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(0, ge=0, le=65535, description="port to listen on; 0 chooses a free one")
    max_message_bytes: int = Field(16 << 20, ge=1 << 16, description="largest message taken or sent")
    drain_s: float = Field(5.0, ge=0, description="seconds that calls in flight get at shutdown")
    health_port: int = Field(
        0, ge=0, le=65535, description="a second port, never encrypted, that has health alone; 0: none"
    )
    max_connection_age_s: float = Field(
        0.0,
        ge=0,
        description="seconds after which callers connect anew, and so find new replicas; 0: never",
    )
    auth_file: Path | None = Field(
        None, description="TOML of tenants, their keys, scopes and rates; empty: whoever reaches the port may call"
    )
    max_connections: int = Field(4_096, ge=1, description="connections that are open at once; more are turned away")
    max_streams: int = Field(1_024, ge=1, description="calls in flight on one connection; more wait at the caller")
    max_metadata_bytes: int = Field(16 << 10, ge=1 << 12, description="largest headers of a call")
    handshake_s: float = Field(10.0, gt=0, description="seconds that a new connection gets to say who it is")


S = TypeVar("S", bound=BaseSettings)


def env_prefix(service: str) -> str:
    """`feature-store` → `HEADRACE_FEATURE_STORE_`."""
    return PREFIX + service.upper().replace("-", "_") + "_"


def load(kind: type[S], environment: Mapping[str, str] | None = None) -> S:
    """The settings of `kind` from the environment.

    Raises SettingsError for values that do not fit and for `HEADRACE_*` names that no part of
    Headrace reads; names of other services pass, since processes may share an environment.
    """
    given = os.environ if environment is None else environment
    prefix = str(kind.model_config.get("env_prefix", ""))
    _refuse_unknown(kind, prefix, given)
    values: dict[str, Any] = {
        name: given[(prefix + name).upper()] for name in kind.model_fields if (prefix + name).upper() in given
    }
    try:
        return kind(**values)
    except ValidationError as error:
        faults = [f"{(prefix + str(e['loc'][0])).upper()}={_shown(e)}: {e['msg']}" for e in error.errors()]
        raise SettingsError("; ".join(faults)) from error


def _shown(fault: ErrorDetails) -> str:
    return "…" if fault["loc"][0] in _SECRETS else repr(fault["input"])


def _refuse_unknown(kind: type[BaseSettings], prefix: str, given: Mapping[str, str]) -> None:
    known = {(prefix + name).upper() for name in kind.model_fields}
    known |= {(PREFIX + name).upper() for name in CommonSettings.model_fields}
    others = tuple(env_prefix(service) for service in SERVICES if env_prefix(service) != prefix)
    unknown = sorted(
        name for name in given if name.startswith(PREFIX) and name not in known and not name.startswith(others)
    )
    if unknown:
        raise SettingsError(f"unknown variable {', '.join(unknown)}; known here: {', '.join(sorted(known))}")
