"""Scopes: what a tenant's key allows, and the one that each method asks for.

Methods that are not here are for the suite's own services: certificates guard them, tenants' keys never open them.
"""

from __future__ import annotations

READ, WRITE, PEOPLE_WRITE, LETTERS_WRITE = "read", "write", "people:write", "letters:write"
ROLLOUT_WRITE, ARM_FORCE = "rollout:write", "arm:force"

SCOPE_OF = {
    # ranker
    "Recommend": READ,
    "Search": READ,
    "Rank": READ,
    "GetRankerStatus": READ,
    # ingest
    "GetIngestStatus": READ,
    "WriteUserEvents": WRITE,
    "StreamUserEvents": WRITE,
    "WriteProducts": WRITE,
    "WriteFacts": WRITE,
    "DeleteProduct": WRITE,
    "ForgetUser": PEOPLE_WRITE,
    "ChangeIdentity": PEOPLE_WRITE,
    # a dead letter shows an event as it was sent
    "ListDeadLetters": LETTERS_WRITE,
    "ReplayDeadLetters": LETTERS_WRITE,
    # trainer
    "GetTrainingStatus": READ,
    "ListReleases": READ,
    "GetRelease": READ,
    "GetRollout": READ,
    "ListRollouts": READ,
    "GetRolloutHistory": READ,
    "CreateRollout": ROLLOUT_WRITE,
    "PromoteRollout": ROLLOUT_WRITE,
    "AbortRollout": ROLLOUT_WRITE,
    "PauseRollout": ROLLOUT_WRITE,
    "ResumeRollout": ROLLOUT_WRITE,
    "UndoRollout": ROLLOUT_WRITE,
}
# the services whose methods these are
SERVICES_WITH_TENANTS = ("ingest", "ranker", "trainer")

# the ranker asks for this one by itself, where a call names the arm that is to answer it
SCOPES = frozenset(SCOPE_OF.values()) | {ARM_FORCE}
