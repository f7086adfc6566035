"""Who says that people are forgotten: each learner speaks for itself, for it holds a state of its own."""

from __future__ import annotations

_NAME, _DEFAULT_LINEAGE = "trainer", "main"


def consumer_name(lineage: str) -> str:
    """What ingest waits for (HEADRACE_INGEST_FORGET_CONSUMERS).

    >>> consumer_name("main"), consumer_name("candidate")
    ('trainer', 'trainer-candidate')
    """
    return _NAME if lineage == _DEFAULT_LINEAGE else f"{_NAME}-{lineage}"
