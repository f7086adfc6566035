"""Compares another machine's clock with this one's: windows and skew limits need clocks that agree."""

from __future__ import annotations

import time

from headrace.cli.doctor.finding import Finding, failure, ok, warning

# the door refuses events that are 60 s ahead of it
_FAR_S = 30.0
_NOTICEABLE_S = 2.0
_REMEDY = "let both machines follow one time server"


def clock(part: str, its_time_s: float) -> Finding:
    """How far the clock that read `its_time_s` (Unix seconds) just now is from this one's."""
    ahead_s = its_time_s - time.time()
    found = f"{abs(ahead_s):.2f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    if abs(ahead_s) > _FAR_S:
        return failure(part, found, _REMEDY)
    if abs(ahead_s) > _NOTICEABLE_S:
        return warning(part, found, _REMEDY)
    return ok(part, found)
