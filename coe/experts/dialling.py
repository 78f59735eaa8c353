"""Connections to experts: who keeps them, and how long."""

from __future__ import annotations

import aiohttp

# shorter than the 5 s after which uvicorn, and so vLLM, drops a connection that nobody uses
_KEPT_S = 4.0
_READ_BYTES = 64 * 1024


def session() -> aiohttp.ClientSession:
    """A pool of connections without cookies, proxies or decompression, to be closed by its owner.

    No limit on their number: a slow expert that holds many must not keep others waiting for one.
    A body is read ahead by twice 64 KiB at most. To be called with a running loop.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=_READ_BYTES,
        timeout=aiohttp.ClientTimeout(total=None),
    )
