"""The messages of feature drift."""

from __future__ import annotations

from headrace.feature_store.drift import Drift, Period
from headrace.runtime.errors import Faults
from headrace.v1 import feature_store_pb2


def drift_request(request: feature_store_pb2.GetFeatureDriftRequest) -> tuple[Period | None, Period | None]:
    """The reference and the recent period; None for the default. InvalidRequestError names every fault."""
    faults = Faults()
    reference = _period(request.reference_after_offset, request.reference_until_offset, "reference_", faults)
    recent = _period(request.after_offset, request.until_offset, "", faults)
    faults.raise_if_any()
    return reference, recent


def _period(after: int, until: int, prefix: str, faults: Faults) -> Period | None:
    if after == until == 0:
        return None
    faults.check(after >= 0, f"{prefix}after_offset", f"must be at least 0, got {after}")
    faults.check(until > after, f"{prefix}until_offset", f"must be above {prefix}after_offset {after}, got {until}")
    return Period(after, until)


def drift_response(drift: Drift, reference: Period, recent: Period) -> feature_store_pb2.GetFeatureDriftResponse:
    return feature_store_pb2.GetFeatureDriftResponse(
        features=[
            feature_store_pb2.FeatureDrift(
                feature=one.feature,
                stability=one.stability,
                reference_mean=one.reference_mean,
                recent_mean=one.recent_mean,
                not_finite=one.not_finite,
            )
            for one in drift.features
        ],
        reference_rows=drift.reference_rows,
        recent_rows=drift.recent_rows,
        reference_after_offset=reference.after,
        reference_until_offset=reference.until,
        after_offset=recent.after,
        until_offset=recent.until,
    )
