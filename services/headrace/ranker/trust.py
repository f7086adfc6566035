"""Who may say what of arms in the metadata of a call.

A forced arm is for tenants with the scope `arm:force` where a file of tenants is kept, else for callers with the shared
key: one rule or the other, so that a key that leaked opens nothing once tenants are known. That a call was sent on, and
what it counts as, only another ranker may say.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from headrace.ranker.marks import Marks
from headrace.runtime.access import is_granted, visiting
from headrace.runtime.entrance import Connection, peer_of
from headrace.runtime.errors import PermissionDeniedError
from headrace.runtime.scopes import ARM_FORCE

_SERVICE = "ranker"


def may_force(secret: str, *, with_tenants: bool) -> Callable[[Marks], bool]:
    """Whether the caller of the call being served may choose its arm. With neither tenants nor a secret nobody may."""
    if with_tenants:
        return lambda _: visiting.get() is not None and is_granted(ARM_FORCE)
    return lambda marks: bool(secret) and compare_digest(marks.force_key.encode(), secret.encode())


class Forwarders:
    """Tells other rankers from everybody else: `with_peers` by their certificates, and never by a tenant's key."""

    def __init__(self, *, with_peers: bool) -> None:
        self._with_peers = with_peers

    def check(self, marks: Marks, connection: Connection) -> None:
        """PermissionDeniedError: marks of a ranker come from somebody else."""
        if marks.are_a_rankers and not self._is_ranker(connection):
            raise PermissionDeniedError(
                "headrace-forwarded-to, headrace-rollout and headrace-arm are for rankers alone"
            )

    def _is_ranker(self, connection: Connection) -> bool:
        if visiting.get() is not None:
            return False
        return not self._with_peers or peer_of(connection) == _SERVICE
