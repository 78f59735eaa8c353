"""What a gateway leans on and has not got, and what it takes no further itself."""

from __future__ import annotations

from coe.errors import CoeError


class FleetError(CoeError):
    """A cluster, its supervisor, or a node of it is not there, or does not accept us."""


class LedgerError(CoeError):
    """The ledger cannot be opened, read or written, or does not add up."""


class LedgerConflictError(LedgerError):
    """What is said of a request contradicts what was said of it before. Nothing was changed.

    Parameters
    ----------
    request_id : which one.
    reason : the contradiction, in a few words.
    """

    def __init__(self, request_id: str, reason: str) -> None:
        super().__init__(request_id, reason)
        self.request_id = request_id
        self.reason = reason

    def __str__(self) -> str:
        return f"request {self.request_id!r} {self.reason}"


class LedgerUnavailableError(LedgerError):
    """Nothing can be reserved now, so nothing metered is answered: that may pass by itself."""

    code = "budget_store_unavailable"


class MeterError(CoeError):
    """A meter of power or energy cannot be read.

    Parameters
    ----------
    meter : its name, such as ``"rapl"``.
    reason : why, in a few words.
    remedy : what a person can do about it; empty where the machine has no such meter.
    """

    def __init__(self, meter: str, reason: str, remedy: str = "") -> None:
        super().__init__(meter, reason, remedy)
        self.meter = meter
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.meter}: {self.reason}" + (f": {self.remedy}" if self.remedy else "")


class EmbeddingError(CoeError):
    """An embeddings endpoint gave no usable vectors; the message names the field to mend."""


class EmbeddingUnavailableError(EmbeddingError):
    """The endpoint is not there, overloaded or too slow: that may pass by itself."""


class GatewayError(CoeError):
    """The gateway itself takes a request no further, whatever it asks for."""

    code = "gateway_failed"


class OverloadedError(GatewayError):
    """Too many other requests are being answered.

    Parameters
    ----------
    message : how many may be, and of whom.
    retry_after_s : when to ask again; not the same for all who are refused at once.
    """

    code = "overloaded"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message, retry_after_s)
        self.message = message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class OverdueError(GatewayError):
    """The request took longer than any may; what had been made of its answer is booked."""

    code = "answer_timeout"


class EndingError(GatewayError):
    """The gateway is being ended: it takes no more requests, or the time for its answer is over."""

    code = "shutting_down"
