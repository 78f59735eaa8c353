"""Errors as HTTP says them."""

from coe.errors.callers import BudgetExhaustedError, RequestError
from coe.errors.experts import ExpertUnavailableError
from coe.services.wire.refusals import rendered, when_again


def test_what_never_fits_has_no_time_to_wait():
    error = BudgetExhaustedError("ask for a shorter answer", "limits.house.tokens")
    status, document = rendered(error)
    assert (status, document["error"]["param"]) == (429, "limits.house.tokens")
    assert when_again(status, error) == {"x-should-retry": "false"}


def test_what_passes_by_itself_may_be_tried_again_soon():
    error = ExpertUnavailableError("a", "not started")
    status, _ = rendered(error)
    assert (status, when_again(status, error)) == (503, {"retry-after": "1"})


def test_what_is_wrong_with_a_request_stays_wrong():
    error = RequestError("no", "model")
    status, _ = rendered(error)
    assert (status, when_again(status, error)) == (400, {})
