"""Every error this package raises, as one tree.

::

    CoeError
    ├── ConfigError            a configuration file is absent, malformed or inconsistent
    ├── WeightsError           weights are absent, or are not the bytes the manifest promises
    ├── PlanError              a plan cannot be read, written, made or used
    ├── SimulationError        what is asked for cannot be simulated, or a trace cannot be read
    ├── ArtefactError          a trained artefact is absent, altered or of another schema
    ├── OutcomesError          an outcome or prompt table has the wrong columns or values
    ├── MeasurementsError      a table of measured requests has the wrong columns or values
    ├── FleetError             a cluster, its supervisor or a node of it is not there
    ├── LedgerError            the ledger cannot be opened, read or written, or does not add up
    │   ├── LedgerConflictError    what is said of a request contradicts what was said before
    │   └── LedgerUnavailableError nothing can be reserved now: may pass by itself
    ├── MeterError             a meter of power or energy cannot be read
    ├── EmbeddingError         an embeddings endpoint gave no vectors
    │   └── EmbeddingUnavailableError  not there, overloaded, or too slow: may pass by itself
    ├── RequestError           the caller asked for something impossible
    │   ├── UnknownExpertError     no such expert or budget policy
    │   ├── BudgetExhaustedError   a hard budget over time does not leave what it may take
    │   ├── CredentialsError       no key is shown, or one that is none
    │   ├── ForbiddenError         the key is right, and may not do this
    │   ├── RateLimitError         asked too often, or for too much, per minute
    │   └── InfeasibleError        no expert fits the budget; carries the smallest that would do
    ├── GatewayError           the gateway itself takes a request no further
    │   ├── OverloadedError        too many others are being answered
    │   ├── OverdueError           it took longer than any request may
    │   └── EndingError            the gateway is being ended
    └── ExpertError            an expert did not answer
        ├── ExpertUnavailableError     not there: not started, crashed, refused the connection
        │   ├── ExpertLostError            asked, and gone before its answer began
        │   └── ExpertUnaskedError         not even asked: nothing is there that could be
        │       └── ExpertOverloadedError      nothing there takes one more request now
        ├── ExpertTimeoutError         there, but silent for longer than allowed
        ├── ExpertRejectedError        answered with an HTTP error of its own
        └── ExpertUntrustedError       what came is no answer, or not from whom it should be

Every constructor argument reaches ``super().__init__``, so that an error survives pickling
between processes.
"""

from __future__ import annotations

from typing import Final


class CoeError(Exception):
    """Base of every error of this package. ``str(error)`` is one sentence a person can act on."""


class ConfigError(CoeError):
    """A configuration is absent, malformed or inconsistent; the message says where."""


class WeightsError(CoeError):
    """Weights are absent, or are not the bytes that the manifest promises."""


class PlanError(CoeError):
    """A plan cannot be read, written, made or used."""


class SimulationError(CoeError):
    """What is asked for cannot be simulated, or a trace cannot be read."""


class ArtefactError(CoeError):
    """A trained artefact is absent, altered or of another schema."""


class OutcomesError(CoeError):
    """An outcome or prompt table has wrong columns or values."""


class MeasurementsError(CoeError):
    """A table of measured requests has wrong columns or values, or too few rows to fit."""


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


class RequestError(CoeError):
    """The caller asked for something impossible.

    Parameters
    ----------
    message : what is wrong and what would be right.
    param : the offending field of the request, such as ``"coe.budget.energy_j"``.
    code : a short machine-readable word, such as ``"invalid_value"``.
    """

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message, param, code)
        self.message = message
        self.param = param
        self.code = code

    def __str__(self) -> str:
        return self.message


class UnknownExpertError(RequestError):
    """No expert or budget policy has the requested name."""

    def __init__(
        self, message: str, param: str | None = "model", code: str = "model_not_found"
    ) -> None:
        super().__init__(message, param, code)


class InfeasibleError(RequestError):
    """No expert fits the budget.

    Parameters
    ----------
    message, param, code : as in `RequestError`; ``param`` names the binding ceiling.
    needed : per ceiling, the smallest value that would admit an expert with all other
        ceilings kept; ``None`` where no value of that ceiling alone would do.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str = "budget_infeasible",
        needed: dict[str, float | None] | None = None,
    ) -> None:
        super().__init__(message, param, code)
        self.args = (message, param, code, needed)
        self.needed = needed or {}


class BudgetExhaustedError(RequestError):
    """A hard budget over time does not leave what the request may take.

    Parameters
    ----------
    message, param, code : as in `RequestError`; ``param`` names limit and resource.
    retry_after_s : until the window ends, whole seconds rounded up; ``None``: even an untouched
        window would not do.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str = "budget_exhausted",
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message, param, code)
        self.args = (message, param, code, retry_after_s)
        self.retry_after_s = retry_after_s


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


class CredentialsError(RequestError):
    """Nobody is let in without a key: there is none, or what is shown is none (any more)."""

    def __init__(
        self, message: str, param: str | None = None, code: str = "invalid_api_key"
    ) -> None:
        super().__init__(message, param, code)


class ForbiddenError(RequestError):
    """The key is right, and not one that may do this."""

    def __init__(
        self, message: str, param: str | None = None, code: str = "role_not_allowed"
    ) -> None:
        super().__init__(message, param, code)


class RateLimitError(RequestError):
    """A key or an address asks too often, or took too much, per minute.

    Parameters
    ----------
    message, param, code : as in `RequestError`.
    retry_after_s : whole seconds until it may ask again.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str = "rate_limit_exceeded",
        retry_after_s: int = 1,
    ) -> None:
        super().__init__(message, param, code)
        self.args = (message, param, code, retry_after_s)
        self.retry_after_s = retry_after_s


class ExpertError(CoeError):
    """An expert did not answer.

    Parameters
    ----------
    expert_id : which one.
    reason : why, in a few words, free of addresses and secrets.
    n_attempts : requests that reached something of the expert's which could have answered.
    n_tried : the same of all experts that were tried, where this is the last word to a caller.
    """

    n_attempts = 1
    n_tried = 0

    def __init__(self, expert_id: str, reason: str) -> None:
        super().__init__(expert_id, reason)
        self.expert_id = expert_id
        self.reason = reason

    def __str__(self) -> str:
        return f"expert {self.expert_id!r}: {self.reason}"


class ExpertUnavailableError(ExpertError):
    """The expert is not there: not started, crashed, or it refused the connection."""


class ExpertLostError(ExpertUnavailableError):
    """The expert was asked, and broke off before its answer began: nobody knows what it took."""


class ExpertUnaskedError(ExpertUnavailableError):
    """The expert was not asked: nothing is there that could be, so nothing was taken either."""

    n_attempts = 0


class ExpertOverloadedError(ExpertUnaskedError):
    """The expert was not asked: what is there takes no request more, or none for a while.

    Parameters
    ----------
    expert_id, reason : as in `ExpertError`.
    retry_after_s : when it may be worth to ask again, positive.
    """

    code = "overloaded"

    def __init__(self, expert_id: str, reason: str, retry_after_s: float = 1.0) -> None:
        super().__init__(expert_id, reason)
        self.args = (expert_id, reason, retry_after_s)
        self.retry_after_s = retry_after_s


class ExpertTimeoutError(ExpertError):
    """The expert is there but stayed silent for longer than allowed."""


class ExpertRejectedError(ExpertError):
    """The expert answered with an HTTP error of its own.

    Parameters
    ----------
    expert_id, reason : as in `ExpertError`.
    status : the HTTP status of the expert's answer, anything but 200.
    body : the expert's answer, at most a few kilobytes.
    retry_after : its ``Retry-After``, as it was sent; ``None``: it sent none, or several.
    """

    def __init__(
        self,
        expert_id: str,
        reason: str,
        status: int,
        body: bytes = b"",
        retry_after: str | None = None,
    ) -> None:
        super().__init__(expert_id, reason)
        self.args = (expert_id, reason, status, body, retry_after)
        self.status = status
        self.body = body
        self.retry_after = retry_after


class ExpertUntrustedError(ExpertError):
    """What came from the expert's side is not passed on: no answer, or not from whom it should be.

    Parameters
    ----------
    expert_id, reason : as in `ExpertError`.
    code : ``"upstream_invalid"``: what was sent is no answer; ``"upstream_redirect"``: it points
        elsewhere; ``"upstream_blocked"``: its address is none to connect to; ``"upstream_tls"``:
        it does not prove who it is.
    """

    def __init__(self, expert_id: str, reason: str, code: str = "upstream_invalid") -> None:
        super().__init__(expert_id, reason)
        self.args = (expert_id, reason, code)
        self.code = code


UNANSWERED: Final = (ExpertError, BudgetExhaustedError, LedgerUnavailableError)
"""Why an expert gave no answer while others may: it failed, or what it may take was not granted."""
