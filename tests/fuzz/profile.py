"""How long a fuzz test tries: a moment in the ordinary suite, as long as it may in `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))

fuzz = settings(
    max_examples=EXAMPLES,
    # a hang is told by pytest's own time limit
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
