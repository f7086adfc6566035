from __future__ import annotations

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2

from headrace.runtime import errors
from headrace.runtime.errors import Fault, Faults, InvalidRequestError
from headrace.runtime.rpc_status import faults_of, status_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequestError.of("page_size", "must be at least 1, got 0"), code_pb2.INVALID_ARGUMENT),
        (errors.NotFoundError("no release 'r-1'"), code_pb2.NOT_FOUND),
        (errors.AlreadyExistsError("space s is of another dimension"), code_pb2.ALREADY_EXISTS),
        (errors.FailedPreconditionError("not folded that far"), code_pb2.FAILED_PRECONDITION),
        (errors.OverloadedError("too much"), code_pb2.RESOURCE_EXHAUSTED),
        (errors.UnavailableError("not ready"), code_pb2.UNAVAILABLE),
        (errors.DeadlineError("too late"), code_pb2.DEADLINE_EXCEEDED),
        (errors.CorruptDataError("bad checksum"), code_pb2.DATA_LOSS),
        (errors.HeadraceError("something else"), code_pb2.INTERNAL),
    ],
)
def test_each_error_has_its_own_status_and_keeps_its_words(error: errors.HeadraceError, code: int) -> None:
    status = status_of(error)
    assert (status.code, status.message) == (code, str(error))


def test_a_kind_of_an_error_is_answered_as_that_error() -> None:
    class NoSuchSpaceError(errors.NotFoundError):
        pass

    assert status_of(NoSuchSpaceError("s")).code == code_pb2.NOT_FOUND


def test_every_fault_is_in_the_details() -> None:
    status = status_of(InvalidRequestError([Fault("a", "is wrong"), Fault("b[1]", "is worse")]))
    details = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(details)
    assert [(v.field, v.description) for v in details.field_violations] == [("a", "is wrong"), ("b[1]", "is worse")]


def test_when_to_try_again_is_in_the_details() -> None:
    for error in (
        errors.OverloadedError("x", retry_after_s=1.5),
        errors.FailedPreconditionError("x", retry_after_s=1.5),
        errors.UnavailableError("x", retry_after_s=1.5),
    ):
        info = error_details_pb2.RetryInfo()
        assert status_of(error).details[0].Unpack(info)
        assert info.retry_delay.ToMilliseconds() == 1_500


def test_an_error_without_a_time_has_no_retry_detail() -> None:
    assert not status_of(errors.UnavailableError("x")).details


def test_faults_are_collected_and_raised_together() -> None:
    faults = Faults()
    faults.raise_if_any()
    assert faults.check(True, "fine", "is fine")
    assert not faults.check(False, "page_size", "must be at least 1, got 0")
    faults.add("query", "must be given")
    with pytest.raises(
        InvalidRequestError, match="page_size: must be at least 1, got 0; query: must be given"
    ) as error:
        faults.raise_if_any()
    assert error.value.faults == faults.all()


def test_an_error_of_another_kind_carries_no_faults() -> None:
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
    assert faults_of(error) == ()
