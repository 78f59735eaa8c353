"""HTTP servers inside a process that has other things to end, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette


class Server(uvicorn.Server):
    """A server that leaves signals to its owner.

    uvicorn's own ends the process by the signal once it has drained, before the engines behind
    the gateway could be ended.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def server(app: Starlette, **options: Any) -> Server:
    """A quiet server of ``app``, with uvicorn's options."""
    return Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            # longer than clients keep an idle connection (httpx: 5 s): one that is closed here just
            # as it is used again costs the caller an error
            timeout_keep_alive=75,
            server_header=False,
            lifespan="off",
            **options,
        )
    )
