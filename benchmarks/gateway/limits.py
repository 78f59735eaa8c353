"""What no gateway on this stack can exceed: its server alone, and its client alone.

``python limits.py echo PORT`` serves an ASGI application that sends every body back, on the server
of the gateway. ``python limits.py client PORT N SECONDS`` asks the stub at a port as the gateway's
client does, N at once, and prints how often a second and the CPU seconds that took, as JSON.
"""

import asyncio
import json
import sys
import time

import uvloop
from generator import PROMPT

from coe.http.pool import Pool
from coe.services.sockets.server import listening, server


async def echo(scope, receive, send):
    """Send the body back."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _serve(port: int) -> None:
    await server(echo).serve(sockets=[listening("127.0.0.1", port)])


async def _ask(port: int, n_at_once: int, seconds: float) -> dict[str, float]:
    message = {"role": "user", "content": PROMPT}
    content = json.dumps({"model": "stub", "messages": [message], "max_tokens": 64}).encode()
    headers = {"content-type": "application/json"}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    n, began, burnt = 0, time.perf_counter(), time.process_time()
    async with Pool() as client:

        async def worker() -> None:
            nonlocal n
            while time.perf_counter() < began + seconds:
                response = await client.request(url, content, headers, 1.0)
                while await response.read():
                    pass
                n += 1

        await asyncio.gather(*(worker() for _ in range(n_at_once)))
    elapsed = time.perf_counter() - began
    return {"requests_per_s": n / elapsed, "cpu_s": (time.process_time() - burnt), "n": n}


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        uvloop.run(_serve(int(sys.argv[2])))
    else:
        port, n_at_once, seconds = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
        print(json.dumps(uvloop.run(_ask(port, n_at_once, seconds))))
