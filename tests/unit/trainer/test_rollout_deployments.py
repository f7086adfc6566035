"""Whether a rollout of code is in progress, asked of a Kubernetes API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from lightkube import AsyncClient
from lightkube.config.kubeconfig import KubeConfig

from headrace.runtime.errors import UnavailableError
from headrace.trainer.rollouts.deployments import RankerDeployments

_SETTLED = {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}
_STATUSES: dict[str, dict[str, int]] = {
    "settled": _SETTLED,
    "new": {},
    "changed": _SETTLED | {"observedGeneration": 2},
    "halfway": _SETTLED | {"replicas": 3, "updatedReplicas": 1},
    "leaving": _SETTLED | {"replicas": 3},
}


class _Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": "shop", "generation": 3},
            "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": _STATUSES.get(name),
        }
        found = self.path == f"/apis/apps/v1/namespaces/shop/deployments/{name}" and name in _STATUSES
        body = json.dumps(deployment if found else {"kind": "Status", "code": 404, "message": "no"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def api() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Api)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def _client(api: str) -> AsyncClient:
    named = {"clusters": [{"name": "c", "cluster": {"server": api}}], "users": [{"name": "u", "user": {"token": "t"}}]}
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}
    return AsyncClient(KubeConfig.from_dict(named | {"contexts": [context], "current-context": "c"}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("settled", []),
        ("new", ["Deployment new is changed and not looked at yet"]),
        ("changed", ["Deployment changed is changed and not looked at yet"]),
        ("halfway", ["Deployment halfway has 1 of 2 replicas of the newest template"]),
        ("leaving", ["Deployment leaving has 1 replicas of an older template still"]),
    ],
)
async def test_a_deployment_is_settled_or_says_why_not(api: str, name: str, said: list[str]) -> None:
    assert await RankerDeployments(_client(api), ["settled", name], "shop").unsettled() == said


async def test_a_deployment_that_is_not_there_is_told(api: str) -> None:
    with pytest.raises(UnavailableError, match="'missing'"):
        await RankerDeployments(_client(api), ["missing"], "shop").unsettled()
