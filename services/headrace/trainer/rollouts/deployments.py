"""Whether the rankers' Deployments are in the midst of a rollout of code: a rollout of weights waits for that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.runtime.errors import UnavailableError
from headrace.trainer.rollouts.cluster import cluster_client

if TYPE_CHECKING:
    from lightkube import AsyncClient
    from lightkube.resources.apps_v1 import Deployment

_VARIABLE = "HEADRACE_ROLLOUT_DEPLOYMENTS"


class RankerDeployments:
    """Asks the Kubernetes API; needs to `get` these Deployments, nothing else."""

    def __init__(self, client: AsyncClient, names: Sequence[str], namespace: str) -> None:
        self._client = client
        self._names = names
        self._namespace = namespace or None

    async def unsettled(self) -> Sequence[str]:
        """Which are in the midst of one, each in words. UnavailableError: the API does not tell."""
        import httpx2
        from lightkube.core.exceptions import ApiError
        from lightkube.resources.apps_v1 import Deployment

        found = []
        for name in self._names:
            try:
                deployment = await self._client.get(Deployment, name, namespace=self._namespace)
            except (ApiError, httpx2.HTTPError) as error:
                raise UnavailableError(f"{_VARIABLE}: Deployment {name!r}: {error}") from error
            if said := unsettled(deployment):
                found.append(f"Deployment {name} {said}")
        return found


def ranker_deployments(names: Sequence[str], namespace: str) -> RankerDeployments:
    """SettingsError: there is no Kubernetes to ask, or the extra for it is not installed."""
    return RankerDeployments(cluster_client(_VARIABLE, namespace), names, namespace)


def unsettled(deployment: Deployment) -> str:
    """Why it is not settled, as `kubectl rollout status` would say; empty: all replicas are of the newest template."""
    spec, status, meta = deployment.spec, deployment.status, deployment.metadata
    wanted = spec.replicas if spec is not None and spec.replicas is not None else 1
    if status is None or (status.observedGeneration or 0) < ((meta.generation if meta else None) or 0):
        return "is changed and not looked at yet"
    updated, replicas = status.updatedReplicas or 0, status.replicas or 0
    if updated < wanted:
        return f"has {updated} of {wanted} replicas of the newest template"
    if replicas > updated:
        return f"has {replicas - updated} replicas of an older template still"
    return ""
