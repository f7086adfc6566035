"""Who may call what: the one table that servers authorise their peers by and that network policies repeat.

A peer is known by the URI in its certificate, `spiffe://headrace/ranker`. What is not in the table is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# whoever runs the suite: the `headrace` command, and migrations
OPERATOR = "operator"
# a shop's web site, or the gateway before it
STOREFRONT = "storefront"
EXTERNAL_CALLERS = (STOREFRONT, OPERATOR)

ALL = frozenset({"*"})

# caller → service → methods
CALLS: Mapping[str, Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "ingest": {},
        "feature-store": {},
        "index": {"index": frozenset({"GetIndexStats", "CopySpace"})},
        "trainer": {
            "index": frozenset(
                {"ApplyEmbeddings", "CreateSpace", "ActivateSpace", "DropSpace", "GetIndexStats", "GetEmbeddings"}
            ),
            "feature-store": frozenset({"GetTrainingRows"}),
        },
        "ranker": {
            "feature-store": frozenset({"GetUserState", "WatchItemFeatures"}),
            "index": frozenset({"Search", "GetEmbeddings", "WatchEmbeddings"}),
            "trainer": frozenset({"WatchServingPlan", "FetchArtifact", "ReportServing"}),
            # the stable track asks the canary track
            "ranker": frozenset({"Recommend", "Search", "Rank"}),
        },
        STOREFRONT: {
            "ingest": frozenset(
                {
                    "WriteUserEvents",
                    "StreamUserEvents",
                    "WriteProducts",
                    "WriteFacts",
                    "DeleteProduct",
                    "ForgetUser",
                    "ChangeIdentity",
                }
            ),
            "ranker": frozenset({"Recommend", "Search", "Rank"}),
        },
        OPERATOR: dict.fromkeys(("ingest", "feature-store", "trainer", "index", "ranker"), ALL),
    }
)


def may_call(caller: str, service: str, method: str) -> bool:
    """Whether the table lets `caller` call a method of `service`."""
    methods = CALLS.get(caller, {}).get(service, frozenset())
    return method in methods or methods is ALL


def edges() -> frozenset[tuple[str, str]]:
    """(caller, service) of every pair that calls: what network policies let through."""
    return frozenset((caller, service) for caller, services in CALLS.items() for service in services)
