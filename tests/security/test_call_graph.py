from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import headrace
from headrace.runtime.call_graph import ALL, CALLS, EXTERNAL_CALLERS, edges, may_call
from headrace.v1 import feature_store_pb2, index_pb2, ingest_pb2, ranker_pb2, trainer_pb2

SERVICES = {
    "ingest": ingest_pb2.DESCRIPTOR.services_by_name["IngestService"],
    "feature-store": feature_store_pb2.DESCRIPTOR.services_by_name["FeatureStoreService"],
    "trainer": trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"],
    "index": index_pb2.DESCRIPTOR.services_by_name["IndexService"],
    "ranker": ranker_pb2.DESCRIPTOR.services_by_name["RankerService"],
}
STUBS = {f"{service.name}Stub": name for name, service in SERVICES.items()}


@cache
def nodes_of(caller: str) -> list[ast.AST]:
    """Names and attributes in the files of a service that speak to another one."""
    texts = [
        path.read_text("utf-8") for path in (Path(headrace.__file__).parent / caller.replace("-", "_")).rglob("*.py")
    ]
    trees = [ast.parse(text) for text in texts if "stub" in text.lower()]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)]


def stubs_made(caller: str) -> set[str]:
    """The services whose stubs are made in a service's code."""
    names = {node.attr for node in nodes_of(caller) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in nodes_of(caller) if isinstance(node, ast.Name)}
    return {service for stub, service in STUBS.items() if stub in names}


def methods_called(caller: str) -> set[str]:
    """What is called on anything that is named for a stub."""
    return {
        node.attr
        for node in nodes_of(caller)
        if isinstance(node, ast.Attribute) and "stub" in ast.unparse(node.value).lower() and node.attr[0].isupper()
        if not node.attr.endswith("Stub")
    }


def test_every_call_in_the_code_is_in_the_table() -> None:
    for caller in SERVICES:
        services = stubs_made(caller)
        assert {(caller, service) for service in services} <= edges(), caller
        allowed = {method for service in services for method in CALLS[caller][service]}
        assert methods_called(caller) <= allowed, caller


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
