"""What callers asked for and cannot have."""

from __future__ import annotations

from coe.errors import CoeError


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
