"""What goes wrong on the way to an expert and back, as errors of the expert."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from coe.errors import (
    ExpertLostError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    ExpertUntrustedError,
)
from coe.experts.dialling import BlockedError


@contextmanager
def as_its_own(expert_id: str) -> Iterator[None]:
    """Nothing; failures of the connection leave it as errors of the expert."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise ExpertUnavailableError(expert_id, "no connection in time") from error
    except TimeoutError as error:
        raise ExpertTimeoutError(expert_id, "no answer in time") from error
    except (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError) as error:
        reason = f"does not prove who it is ({type(error).__name__})"
        raise ExpertUntrustedError(expert_id, reason, "upstream_tls") from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, BlockedError):
            reason = f"is not connected to: {error.os_error}"
            raise ExpertUntrustedError(expert_id, reason, "upstream_blocked") from error
        raise ExpertUnavailableError(expert_id, _failed(error)) from error
    except aiohttp.InvalidURL as error:
        reason = "is not connected to: its address is none"
        raise ExpertUntrustedError(expert_id, reason, "upstream_blocked") from error
    except aiohttp.ClientResponseError as error:
        reason = f"answered something else than HTTP ({type(error).__name__})"
        raise ExpertUntrustedError(expert_id, reason) from error
    except aiohttp.ClientPayloadError as error:
        raise ExpertLostError(expert_id, "the answer broke off") from error
    except (aiohttp.ClientError, OSError) as error:
        # the connection stood, so the request may have come to whom it was for
        raise ExpertLostError(expert_id, _failed(error)) from error


def _failed(error: Exception) -> str:
    return f"connection failed ({type(error).__name__})"
