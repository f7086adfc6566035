"""Is each process told what its settings read, in words that they take?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from pydantic_settings import BaseSettings

from deploy.check.manifests import Fault, Manifests, Workload, environment_of, of_kind, workloads
from headrace.cli.members import settings_of
from headrace.runtime.settings import CommonSettings, SettingsError, env_prefix, load
from headrace.trainer.rollouts.settings import RolloutSettings

SECRETS = Path(__file__).parents[1] / "kubernetes" / "secrets.yaml"

# settings with a default that is fit for one machine only
_NEEDED_BY_ALL = ("HEADRACE_DATA_DIR",)
_NEEDED = {
    "ingest": ("HEADRACE_EVENT_LOG_URL", "HEADRACE_PRIVACY_KEY", "HEADRACE_INGEST_DATABASE_URL"),
    "feature-store": ("HEADRACE_EVENT_LOG_URL", "HEADRACE_PRIVACY_KEY"),
    "trainer": (
        "HEADRACE_EVENT_LOG_URL",
        "HEADRACE_PRIVACY_KEY",
        "HEADRACE_TRAINER_REGISTRY_URL",
        "HEADRACE_TRAINER_ARTIFACTS_URL",
    ),
    "index": (),
    "ranker": ("HEADRACE_EVENT_LOG_URL", "HEADRACE_PRIVACY_KEY"),
}
_TLS = ("HEADRACE_TLS_CERT", "HEADRACE_TLS_KEY", "HEADRACE_TLS_CA")


def known_secrets() -> dict[str, dict[str, str]]:
    """Name → key → a value of the right form, of every Secret that manifests may name."""
    found: dict[str, dict[str, str]] = yaml.safe_load(SECRETS.read_text())
    return found


def variables_are_read(manifests: Manifests) -> list[Fault]:
    """No variable that nobody reads, and none whose value its setting refuses."""
    return [fault for owner in workloads(manifests) if owner.service for fault in _refusals(owner, manifests)]


def variables_are_complete(manifests: Manifests) -> list[Fault]:
    """What has a default for one machine only is given."""
    faults = []
    for owner in workloads(manifests):
        # Jobs call nobody: they are told of databases alone
        if not owner.service or owner.kind == "Job":
            continue
        given = environment_of(owner, manifests, known_secrets())
        faults += [
            Fault(owner.label, f"env.{name}", "is missing")
            for name in (*_NEEDED_BY_ALL, *_NEEDED[owner.service], *_local_addresses(owner.service))
            if not given.get(name)
        ]
    return faults


def all_or_none_speak_tls(manifests: Manifests) -> list[Fault]:
    """All three files for all processes, or none for any: one that speaks it and one that doesn't never meet."""
    ours = [owner for owner in workloads(manifests) if owner.service and owner.kind != "Job"]
    given = {owner.label: {name for name in _TLS if name in environment_of(owner, manifests, {})} for owner in ours}
    if not any(given.values()):
        return []
    return [
        Fault(label, f"env.{name}", "is missing: others have it")
        for label, own in given.items()
        for name in _TLS
        if name not in own
    ]


def config_maps_hold_settings(manifests: Manifests) -> list[Fault]:
    """What a ConfigMap of settings tells everybody is a setting that everybody has."""
    known = {("HEADRACE_" + name).upper() for name in CommonSettings.model_fields}
    return [
        Fault(f"ConfigMap/{config['metadata']['name']}", f"data.{name}", "is no setting of all processes")
        for config in of_kind(manifests, "ConfigMap")
        for name in config.get("data", {})
        if config["metadata"]["name"].startswith("headrace-settings") and name not in known
    ]


def settings_kinds(service: str) -> Iterator[type[BaseSettings]]:
    """What a process of this service reads from its environment."""
    yield CommonSettings
    yield settings_of(service)
    if service == "trainer":
        yield RolloutSettings


def variables_of(service: str) -> set[str]:
    """Every variable that a process of this service reads."""
    return {
        (str(kind.model_config.get("env_prefix")) + name).upper()
        for kind in settings_kinds(service)
        for name in kind.model_fields
    }


def _refusals(owner: Workload, manifests: Manifests) -> Iterator[Fault]:
    given = {
        name: value
        for name, value in environment_of(owner, manifests, known_secrets()).items()
        if name.startswith("HEADRACE_")
    }
    # of its own variables and of everybody's: others' prefixes pass a process, but tell it nothing
    for name in sorted(given.keys() - variables_of(owner.service)):
        yield Fault(owner.label, f"env.{name}", f"is read by no {owner.service}")
        del given[name]
    yield from _values(owner, given)


def _values(owner: Workload, given: Mapping[str, str]) -> Iterator[Fault]:
    for kind in settings_kinds(owner.service):
        try:
            load(kind, given)
        except SettingsError as error:
            yield Fault(owner.label, "env", str(error))


def _local_addresses(service: str) -> list[str]:
    kind = settings_of(service)
    return [
        env_prefix(service) + name.upper()
        for name, field in kind.model_fields.items()
        if isinstance(field.default, str) and field.default.startswith("127.0.0.1")
    ]
