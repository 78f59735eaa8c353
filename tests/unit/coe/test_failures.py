"""What goes wrong with a connection, as errors of an expert."""

import aiohttp
import pytest

from coe.errors import (
    ExpertError,
    ExpertLostError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    ExpertUntrustedError,
)
from coe.experts.failures import as_its_own


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (aiohttp.ConnectionTimeoutError(), ExpertUnavailableError),  # nothing was sent
        (aiohttp.SocketTimeoutError(), ExpertTimeoutError),
        (TimeoutError(), ExpertTimeoutError),
        (aiohttp.ServerDisconnectedError(), ExpertLostError),
        (aiohttp.ClientPayloadError(), ExpertLostError),
        (ConnectionResetError(), ExpertLostError),
        (aiohttp.InvalidURL("a"), ExpertUntrustedError),
    ],
)
def test_it_says_whether_the_expert_may_have_been_asked(error, told):
    with pytest.raises(ExpertError) as caught, as_its_own("small"):
        raise error
    assert type(caught.value) is told
    assert "small" in str(caught.value)
