"""Steps of a ramp as people write them."""

from __future__ import annotations

from headrace.model.arms import PLACES
from headrace.runtime.errors import InvalidRequestError


def steps_bp(text: str) -> list[int]:
    """Shares of 10,000 people from percents: growing, above 0, at most 100. None of them for an empty text.

    >>> steps_bp("1, 10, 50")
    [100, 1000, 5000]
    """
    if not text.strip():
        return []
    try:
        shares = [float(part) * PLACES / 100 for part in text.split(",")]
    except ValueError as error:
        raise InvalidRequestError.of("--steps", f"must be percents such as 1,10,50, got {text!r}") from error
    fits = all(0 < share <= PLACES and share == int(share) for share in shares)
    if not fits or sorted(set(shares)) != shares:
        raise InvalidRequestError.of(
            "--steps", f"must be growing percents above 0 and at most 100, to the hundredth; got {text!r}"
        )
    return [int(share) for share in shares]
