"""What goes wrong with a connection, as errors of an expert."""

import pytest

from coe.errors.experts import (
    ExpertLostError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    ExpertUntrustedError,
)
from coe.experts.failures import FAILURES, as_its_own
from coe.http.errors import (
    BlockedError,
    BrokenOffError,
    GoneError,
    LateError,
    NoHttpError,
    UnprovenError,
    UnreachedError,
)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LateError(), ExpertUnavailableError),  # nothing was sent
        (UnreachedError("ConnectionRefusedError"), ExpertUnavailableError),
        (TimeoutError(), ExpertTimeoutError),
        (GoneError(), ExpertLostError),
        (BrokenOffError(), ExpertLostError),
        (ConnectionResetError(), ExpertLostError),
        (NoHttpError(), ExpertUntrustedError),
        (BlockedError(), ExpertUntrustedError),
        (UnprovenError(), ExpertUntrustedError),
    ],
)
def test_it_says_whether_the_expert_may_have_been_asked(error, told):
    assert isinstance(error, FAILURES)
    found = as_its_own("small", error)
    assert type(found) is told
    assert "small" in str(found)
