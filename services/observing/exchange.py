"""One request over HTTP and its answer, as far as they are told of afterwards."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from coe.core import Request
from coe.decision import Decision, Receipt
from coe.engine import AnyReply
from coe.errors import CoeError
from coe.services.observing.traceparent import Trace
from coe.steps import Steps

KEY: Final = "coe.exchange"
"""Where an ASGI scope holds its exchange."""


@dataclass(slots=True)
class Exchange:
    """A request from its head to the last byte of its answer.

    Parameters
    ----------
    request_id : of the gateway's own making.
    path : as it came, without the query.
    started_s, ended_s : monotonic, on the clock of ``steps``.
    at_s : when it began, seconds since 1970-01-01 UTC.
    trace : whose part it is; ``None``: nobody traces.
    route : the path's pattern; "none" where there is no such endpoint.
    status : of the answer; 0: nobody waited for one.
    model : what the caller asked for, in his words.
    request : as it was understood; ``None``: it was not, or it asks for no answer.
    reply, decision : what became of it.
    error : why it was refused.
    code : the refusal's, as the caller reads it; "" where there was none.
    client : the address that it came from; "" where there is none.
    key_id : public id of the API key that was shown; "" where there is none.
    """

    request_id: str
    method: str
    path: str
    started_s: float
    at_s: float
    trace: Trace | None = None
    steps: Steps = field(default_factory=Steps)
    route: str = "none"
    status: int = 0
    ended_s: float = 0.0
    model: str = ""
    request: Request | None = None
    reply: AnyReply | None = None
    decision: Decision | None = None
    error: CoeError | None = None
    code: str = ""
    client: str = ""
    key_id: str = ""

    def end(self, error: CoeError, code: str) -> None:
        """It ends with an error, told in an answer of its own or in the last event of a stream."""
        self.error, self.code = error, code

    @property
    def decided(self) -> Decision | None:
        """The decision on it, if it came to one."""
        return self.decision if self.reply is None else self.reply.decision

    @property
    def receipt(self) -> Receipt | None:
        """What the answer took, if there was one and it has ended."""
        return None if self.reply is None else self.reply.receipt


def exchange_of(scope: MutableMapping[str, Any]) -> Exchange:
    """The exchange of an ASGI scope; one that nobody will look at where nobody watches."""
    found = scope.get(KEY)
    return found if isinstance(found, Exchange) else Exchange("", "", "", 0.0, 0.0)
