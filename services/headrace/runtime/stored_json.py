"""JSON that this suite wrote into files of its own: read back as what it was, or refused."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from headrace.runtime.errors import CorruptDataError

T = TypeVar("T")


def parsed(kind: type[T], data: bytes, name: str) -> T:
    """The value of `kind` (dataclasses, and dicts of them) that `data` says. CorruptDataError tells `name` and why.

    >>> parsed(dict[str, int], b'{"a": 1}', "counts.json")
    {'a': 1}
    """
    try:
        # mypy takes no type[T] for hashable
        of: Any = kind
        adapter: TypeAdapter[T] = _adapter(of)
        return adapter.validate_json(data, strict=True)
    except ValidationError as error:
        faults = [".".join(map(str, fault["loc"])) + ": " + fault["msg"] for fault in error.errors()[:3]]
        raise CorruptDataError(f"{name} is not what was written: {'; '.join(faults)[:400]}") from error


# made once a kind: that takes far longer than reading
@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
