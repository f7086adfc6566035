"""Which lineage serves, and which spaces the plan needs: as of the last look at the registry."""

from __future__ import annotations

from headrace.runtime.database import answering
from headrace.trainer.registry import Registry


class ServedLineage:
    """What a learner needs to know of the plan. `look` blocks; the answers may be read from any thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._name = ""
        self._spaces: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """That of the stable release; empty before there is one."""
        return self._name

    @property
    def spaces(self) -> frozenset[str]:
        """Those of all releases that the plan names."""
        return self._spaces

    def look(self) -> None:
        """Looks at the plan as it is now. UnavailableError: the registry is away; the last look stands."""
        with answering("registry"):
            plan = self._registry.plan()
        self._name = plan.stable.lineage if plan.stable is not None else ""
        named = (plan.stable, plan.canary, plan.shadow)
        self._spaces = frozenset(release.space for release in named if release is not None)
