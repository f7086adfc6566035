"""Every lint: a function of a list of manifests, whose docstring says what holds."""

from __future__ import annotations

from collections.abc import Callable

from deploy.check.addresses import addresses_lead_somewhere, addresses_name_every_replica
from deploy.check.disruption import (
    autoscalers_are_where_they_may,
    budgets_leave_room,
    connections_grow_old,
    drain_fits_the_grace_period,
    stateful_sets_start_together,
)
from deploy.check.environment import (
    all_or_none_speak_tls,
    config_maps_hold_settings,
    variables_are_complete,
    variables_are_read,
)
from deploy.check.images import digests_are_set, images_are_by_digest, images_are_of_the_service
from deploy.check.manifests import Fault, Manifests
from deploy.check.network import addresses_equal_the_call_graph, policies_equal_the_call_graph
from deploy.check.pods import namespaces_are_restricted, pods_are_restricted, pods_keep_to_themselves
from deploy.check.ports import (
    named_ports_exist,
    ports_are_those_of_the_settings,
    probes_are_on_the_health_port,
    probes_ask_the_right_question,
)
from deploy.check.references import names_are_unique, references_resolve
from deploy.check.resources import gpus_are_for_who_asks, requests_are_within_limits
from deploy.check.roles import roles_are_least
from deploy.check.selection import (
    selectors_match_templates,
    services_select_one_workload,
    services_show_every_replica,
)

Lint = Callable[[Manifests], list[Fault]]

EVERYWHERE: tuple[Lint, ...] = (
    names_are_unique,
    references_resolve,
    selectors_match_templates,
    services_select_one_workload,
    services_show_every_replica,
    named_ports_exist,
    ports_are_those_of_the_settings,
    probes_are_on_the_health_port,
    probes_ask_the_right_question,
    requests_are_within_limits,
    gpus_are_for_who_asks,
    budgets_leave_room,
    autoscalers_are_where_they_may,
    connections_grow_old,
    drain_fits_the_grace_period,
    stateful_sets_start_together,
    namespaces_are_restricted,
    pods_are_restricted,
    pods_keep_to_themselves,
    variables_are_read,
    variables_are_complete,
    config_maps_hold_settings,
    all_or_none_speak_tls,
    addresses_lead_somewhere,
    addresses_name_every_replica,
    addresses_equal_the_call_graph,
    policies_equal_the_call_graph,
    images_are_of_the_service,
    roles_are_least,
)
IN_PRODUCTION: tuple[Lint, ...] = (images_are_by_digest,)
# of an overlay that is about to be applied
BEFORE_APPLYING: tuple[Lint, ...] = (images_are_by_digest, digests_are_set)


def faults_of(manifests: Manifests, lints: tuple[Lint, ...]) -> list[Fault]:
    """What all the lints find, each fault once."""
    return sorted({fault for lint in lints for fault in lint(manifests)})
