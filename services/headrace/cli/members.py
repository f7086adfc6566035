"""Which processes a suite on one machine may have: the five services, and two more that try another lineage."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path

from headrace.cli.suite_file import CANDIDATE_LEARNER, CANDIDATE_RANKER, SERVICES, service_of
from headrace.runtime.errors import InvalidRequestError
from headrace.runtime.settings import PREFIX, ServingSettings, env_prefix, load

LINEAGE = "candidate"
_TRAINER = env_prefix("trainer")
# what the suite says itself of its second learner
_GIVEN = ("role", "lineage", "beside", "host", "port", "registry_url", "artifacts_url")
# who says that a person is forgotten, where nothing else is given
_CONSUMERS = "feature-store,trainer"
# one machine is asked little, and whoever tries it out wants to see what was learned
_DEFAULTS = {f"{PREFIX}ROLLOUT_QUIET_S": "10"}


def settings_of(service: str) -> type[ServingSettings]:
    """What a service reads from its environment."""
    module = importlib.import_module(f"headrace.{service.replace('-', '_')}.settings")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, ServingSettings)]
    return next(kind for kind in kinds if kind is not ServingSettings)


def candidate_of(given: list[str]) -> dict[str, str]:
    """`["blocks=2"]` → `{"blocks": "2"}`: trainer settings by which the second learner differs from the first.

    InvalidRequestError: not NAME=VALUE, no setting of the trainer, or one that the suite says itself.
    SettingsError: a value that does not fit.
    """
    known = [name for name in settings_of("trainer").model_fields if name not in _GIVEN]
    differs: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or name not in known:
            raise InvalidRequestError.of(
                "--candidate", f"must be NAME=VALUE of a trainer setting, such as blocks=2; got {item!r}"
            )
        differs[name] = value
    load(settings_of("trainer"), _variables(differs))
    return differs


def environment_of(
    member: str, data_dir: Path, addresses: Mapping[str, str], given: Mapping[str, str], candidate: Mapping[str, str]
) -> dict[str, str]:
    """All that a member's process is told."""
    service = service_of(member)
    prefix = env_prefix(service)
    host, port = addresses[member].rsplit(":", 1)
    return {
        **_DEFAULTS,
        **os.environ,
        **given,
        f"{PREFIX}DATA_DIR": str(data_dir),
        f"{prefix}HOST": host,
        f"{prefix}PORT": port,
        **{prefix + name: address for name, address in _peers_of(service, addresses).items()},
        **_role_of(member, addresses, {**os.environ, **given}, candidate),
    }


def _peers_of(service: str, addresses: Mapping[str, str]) -> dict[str, str]:
    # services are strict about settings that they do not know, so each gets its own peers only
    fields = settings_of(service).model_fields
    named = {f"{peer.replace('-', '_')}_address": addresses[peer] for peer in SERVICES if peer in addresses}
    return {name.upper(): address for name, address in named.items() if name in fields}


def _role_of(
    member: str, addresses: Mapping[str, str], given: Mapping[str, str], candidate: Mapping[str, str]
) -> dict[str, str]:
    """What a member is told because of the candidate. People are forgotten when both learners say so."""
    if member == CANDIDATE_LEARNER:
        return _variables({**candidate, "role": "learn", "lineage": LINEAGE, "beside": "true"})
    if member == CANDIDATE_RANKER:
        return {f"{env_prefix('ranker')}TRACK": "canary", f"{env_prefix('ranker')}CANARY_ADDRESS": ""}
    if member == "ranker" and CANDIDATE_RANKER in addresses:
        return {f"{env_prefix('ranker')}CANARY_ADDRESS": addresses[CANDIDATE_RANKER]}
    if member == "ingest" and CANDIDATE_LEARNER in addresses:
        variable = f"{env_prefix('ingest')}FORGET_CONSUMERS"
        return {variable: f"{given.get(variable, _CONSUMERS)},{CANDIDATE_LEARNER}"}
    return {}


def _variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {_TRAINER + name.upper(): value for name, value in settings.items()}
