"""What goes wrong on the way to an expert and back, as errors of the expert."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from coe.errors import ExpertTimeoutError, ExpertUnavailableError, ExpertUntrustedError


@contextmanager
def as_its_own(expert_id: str) -> Iterator[None]:
    """Nothing; failures of the connection leave it as errors of the expert."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise ExpertTimeoutError(expert_id, "no connection in time") from error
    except TimeoutError as error:
        raise ExpertTimeoutError(expert_id, "no answer in time") from error
    except aiohttp.ClientResponseError as error:
        reason = f"answered something else than HTTP ({type(error).__name__})"
        raise ExpertUntrustedError(expert_id, reason) from error
    except aiohttp.ClientPayloadError as error:
        raise ExpertUnavailableError(expert_id, "the answer broke off") from error
    except (aiohttp.ClientError, OSError) as error:
        reason = f"connection failed ({type(error).__name__})"
        raise ExpertUnavailableError(expert_id, reason) from error
