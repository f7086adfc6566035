"""Evidence, policies and verdicts as JSON, read back as equal values."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

from headrace.runtime.stored_json import parsed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def written(value: DataclassInstance) -> str:
    """JSON with sorted keys: equal values give equal texts. ValueError: a number in it is not finite.

    >>> from headrace.trainer.analysis.evidence import Value
    >>> written(Value(0.1, 0.0, 0.2, 5.0))
    '{"effective_sample_size": 5.0, "lower": 0.0, "upper": 0.2, "value": 0.1}'
    """
    return json.dumps(asdict(value), sort_keys=True, allow_nan=False)


def read(kind: type[T], text: str) -> T:
    """The value that was written. CorruptDataError: it is none of this kind."""
    return parsed(kind, text.encode(), kind.__name__)
