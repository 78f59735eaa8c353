"""Whether requests should come to a gateway, and what may be said of that."""

from __future__ import annotations

from typing import Any

from coe.services.runtime import Runtime


def readiness(runtime: Runtime, ends: bool, told: bool) -> tuple[bool, dict[str, Any]]:
    """Whether some expert can answer, now or once it is loaded, and why not, as JSON.

    Parameters
    ----------
    ends : the gateway is being ended.
    told : whoever asks may know of experts and configuration.
    """
    fleet, reloads = runtime.fleet, runtime.reloads
    ready = fleet.can_answer and not ends
    overall = "ready" if ready else "failed" if fleet.has_failed else "starting"
    status: dict[str, Any] = {"status": "draining" if ends else overall}
    if told:
        status["experts"] = fleet.states()
        status["config"] = runtime.engine.config
        status["reload"] = "unchanged" if reloads is None else reloads.last.status
    return ready, status
