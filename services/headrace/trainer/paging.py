"""Pages of a list: how many are wanted, and after which."""

from __future__ import annotations

from collections.abc import Callable

from headrace.runtime.errors import Faults

_PAGE, _MAX_PAGE = 50, 1_000


def page_of(size: int, token: str, is_token: Callable[[str], bool]) -> tuple[int, str]:
    """The size (0 means 50) and the token of a page; InvalidRequestError names both if both are wrong."""
    faults, wanted = Faults(), size or _PAGE
    faults.check(1 <= wanted <= _MAX_PAGE, "page_size", f"must be 1..{_MAX_PAGE} or 0, got {size}")
    faults.check(not token or is_token(token), "page_token", f"must come from an answer, got {token!r}")
    faults.raise_if_any()
    return wanted, token
