"""The one table from Headrace's errors to gRPC statuses with google.rpc details, and back."""

from __future__ import annotations

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from headrace.runtime import errors

_CODES: dict[type[errors.HeadraceError], int] = {
    errors.InvalidRequestError: code_pb2.INVALID_ARGUMENT,
    errors.NotFoundError: code_pb2.NOT_FOUND,
    errors.AlreadyExistsError: code_pb2.ALREADY_EXISTS,
    errors.FailedPreconditionError: code_pb2.FAILED_PRECONDITION,
    errors.UnauthenticatedError: code_pb2.UNAUTHENTICATED,
    errors.PermissionDeniedError: code_pb2.PERMISSION_DENIED,
    errors.OverloadedError: code_pb2.RESOURCE_EXHAUSTED,
    errors.UnavailableError: code_pb2.UNAVAILABLE,
    errors.DeadlineError: code_pb2.DEADLINE_EXCEEDED,
    errors.CorruptDataError: code_pb2.DATA_LOSS,
}


def status_of(error: errors.HeadraceError) -> status_pb2.Status:
    """The google.rpc.Status that a caller gets: BadRequest for faults, RetryInfo for "try again"."""
    status = status_pb2.Status(code=_code(error), message=str(error))
    if isinstance(error, errors.InvalidRequestError):
        status.details.add().Pack(_bad_request(error))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromMicroseconds(int(error.retry_after_s * 1e6))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _code(error: errors.HeadraceError) -> int:
    # a service's own subclass is answered as what it is a kind of
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), code_pb2.INTERNAL)


def _bad_request(error: errors.InvalidRequestError) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(
        field_violations=[violation(field=f.field, description=f.description) for f in error.faults]
    )


def error_of(error: grpc.aio.AioRpcError) -> errors.HeadraceError:
    """The error that a failed call stands for, with its faults and the time after which to try again."""
    code, message = error.code().value[0], error.details() or error.code().name
    if code == code_pb2.CANCELLED:
        return errors.UnavailableError("the server went away while it was asked")
    if code == code_pb2.INVALID_ARGUMENT:
        return errors.InvalidRequestError(faults_of(error) or (errors.Fault("request", message),))
    kind = next((kind for kind, known in _CODES.items() if known == code), errors.HeadraceError)
    told = kind(message)
    if (retry_after_s := retry_after_s_of(error)) is not None:
        told.retry_after_s = retry_after_s
    return told


def retry_after_s_of(error: grpc.RpcError) -> float | None:
    """Seconds after which the server would be asked again; None when it does not say."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.RetryInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return float(info.retry_delay.ToMicroseconds() / 1e6)
    return None


def faults_of(error: grpc.RpcError) -> tuple[errors.Fault, ...]:
    """The field violations that a failed call carries; empty when there are none."""
    status = rpc_status.from_call(error)
    if status is None:
        return ()
    bad_request = error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(bad_request):
            return tuple(errors.Fault(v.field, v.description) for v in bad_request.field_violations)
    return ()
