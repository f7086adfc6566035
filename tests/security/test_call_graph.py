from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import headrace
from headrace.runtime.call_graph import ALL, CALLS, EXTERNAL_CALLERS, OPERATOR, STOREFRONT, may_call
from headrace.v1 import feature_store_pb2, index_pb2, ingest_pb2, ranker_pb2, trainer_pb2

SERVICES = {
    "ingest": ingest_pb2.DESCRIPTOR.services_by_name["IngestService"],
    "feature-store": feature_store_pb2.DESCRIPTOR.services_by_name["FeatureStoreService"],
    "trainer": trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"],
    "index": index_pb2.DESCRIPTOR.services_by_name["IndexService"],
    "ranker": ranker_pb2.DESCRIPTOR.services_by_name["RankerService"],
}
METHODS = {method.name for service in SERVICES.values() for method in service.methods}
PATHS = {f"/{service.full_name}/" for service in SERVICES.values()}


@cache
def words_of(caller: str) -> tuple[set[str], set[str]]:
    """Names in the code of a service, and its strings in files that spell out a path, as at the canary hop."""
    names, strings = set[str](), set[str]()
    for path in (Path(headrace.__file__).parent / caller.replace("-", "_")).rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        names |= {node.id for node in nodes if isinstance(node, ast.Name)}
        spelled = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        if spelled & PATHS:
            strings |= spelled
    return names, strings


def stubs_made(caller: str) -> set[str]:
    """The services whose stubs are made in a service's code, or whose paths are spelled out."""
    names, strings = words_of(caller)
    return {
        name
        for name, service in SERVICES.items()
        if f"{service.name}Stub" in names or f"/{service.full_name}/" in strings
    }


def methods_called(caller: str) -> set[str]:
    """Methods of any service that are taken from something, whatever it is called, or named beside a path."""
    names, strings = words_of(caller)
    return (names | strings) & METHODS


@pytest.mark.parametrize("caller", sorted(SERVICES))
def test_the_table_says_what_the_code_calls_and_nothing_else(caller: str) -> None:
    table = CALLS[caller]
    assert stubs_made(caller) == set(table)
    assert methods_called(caller) == {method for methods in table.values() for method in methods}


def test_the_client_for_storefronts_calls_what_storefronts_may() -> None:
    assert stubs_made("client") == set(CALLS[STOREFRONT])
    assert methods_called("client") <= {method for methods in CALLS[STOREFRONT].values() for method in methods}


def test_calls_that_the_table_rests_on_are_found_in_the_code() -> None:
    # the registry compares releases by the index's vectors, through a stub that is not called one
    assert "GetEmbeddings" in methods_called("trainer")
    assert "ReportServing" in methods_called("ranker")
    # the canary hop has no stub
    assert {"Recommend", "Search", "Rank"} <= methods_called("ranker")


@pytest.mark.parametrize("caller", ["storefront", "operator", "ingest", "index", "trainer", "feature-store"])
def test_only_rankers_ask_for_plans_and_report(caller: str) -> None:
    may = {method: may_call(caller, "trainer", method) for method in ("WatchServingPlan", "ReportServing")}
    assert may == dict.fromkeys(may, caller == OPERATOR)


def test_every_method_in_the_table_exists() -> None:
    for caller, services in CALLS.items():
        for service, methods in services.items():
            assert methods is ALL or methods <= set(SERVICES[service].methods_by_name), (caller, service)


def test_what_is_not_in_the_table_may_not_be_called() -> None:
    assert may_call("ranker", "feature-store", "GetUserState")
    assert not may_call("ranker", "feature-store", "GetTrainingRows")
    assert not may_call("ranker", "ingest", "WriteUserEvents")
    assert not may_call("storefront", "trainer", "PromoteRollout")
    assert not may_call("nobody", "ranker", "Recommend")
    assert not may_call("*", "ranker", "Recommend")


def test_only_the_operator_may_do_everything() -> None:
    everything = {caller for caller, services in CALLS.items() if ALL in services.values()}
    assert everything == {"operator"}
    assert set(CALLS) == {*SERVICES, *EXTERNAL_CALLERS}
