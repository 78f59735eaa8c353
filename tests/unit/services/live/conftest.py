"""A gateway of a folder of files, kept at what they say, over experts behind HTTP."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from coe.config import DATA, load_config
from coe.services.cli.serve import gateway_on, listen
from coe.services.sockets.server import server

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


class Upstream:
    """Experts on one loopback port; a stream has ``n_pieces``, ``pause_s`` apart."""

    def __init__(self):
        self.asked = []
        self.n_pieces, self.pause_s = 3, 0.0
        self._more = asyncio.Condition()

    async def asked_by(self, n):
        """Returns once so many have asked."""
        async with self._more:
            await self._more.wait_for(lambda: len(self.asked) >= n)

    async def answer(self, http):
        body = await http.json()
        async with self._more:
            self.asked.append(body["model"])
            self._more.notify_all()
        if body.get("stream"):
            return StreamingResponse(self.events(), media_type="text/event-stream")
        message = {"role": "assistant", "content": "yes"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse({"model": body["model"], "choices": [choice], "usage": USAGE})

    async def events(self):
        for n in range(self.n_pieces):
            choice = {"index": 0, "delta": {"content": f"{n} "}, "finish_reason": None}
            yield b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
            await asyncio.sleep(self.pause_s)
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        yield b"data: " + json.dumps({"choices": [choice], "usage": USAGE}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"


@pytest.fixture
async def upstream():
    """Stub experts that any number of names may be at."""
    there = Upstream()
    app = Starlette(routes=[Route("/v1/chat/completions", there.answer, methods=["POST"])])
    with listen("127.0.0.1", 0) as listener:
        there.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        serving = server(app)
        task = asyncio.create_task(serving.serve(sockets=[listener]))
        yield there
        serving.should_exit = True
        await task


class Site:
    """The files of a gateway, and how they are written anew."""

    def __init__(self, folder: Path, upstream_url: str):
        self.folder, self.upstream_url, self.said = folder, upstream_url, []
        self.path = folder / "coe.yaml"
        self.write("budgets.yaml", "policies: {default: {}}\n")
        self.configure()

    def write(self, name, text):
        """Put a file in its place at once, as editors do."""
        staging = self.folder / f".{name}.new"
        staging.write_text(text)
        staging.replace(self.folder / name)

    def configure(self, *experts, more="", artefact=DATA / "artefact"):
        """Write ``coe.yaml`` with these experts; by default the two that the artefact knows."""
        rows = [
            f"  - {{id: {name}, kind: http, device: there, base_url: '{self.upstream_url}'}}\n"
            for name in experts or (SMALL, LARGE)
        ]
        self.write(
            "coe.yaml",
            f"artefact: {artefact}\nbudgets: budgets.yaml\n{more}\n"
            "devices: {there: {ttft_b_ms: 1, decode_tokens_per_s: 50, prefill_w: 0, "
            "decode_w: 0}}\nexperts:\n" + "".join(rows),
        )

    @asynccontextmanager
    async def serving(self):
        """The gateway, a client of it, and its runtime."""
        async with AsyncExitStack() as stack:
            listener = stack.enter_context(listen("127.0.0.1", 0))
            on = gateway_on(load_config(self.path), listener, self.said.append, path=self.path)
            url, runtime = await stack.enter_async_context(on)
            client = httpx.AsyncClient(base_url=url, timeout=30.0)
            yield await stack.enter_async_context(client), runtime


@pytest.fixture
def site(tmp_path, upstream):
    return Site(tmp_path, upstream.url)


@pytest.fixture
def ask():
    """A question to a client of a gateway."""

    async def asked(client, model="auto", **more):
        messages = [{"role": "user", "content": "What is 17 * 6?"}]
        body = {"model": model, "messages": messages, **more}
        return await client.post("/v1/chat/completions", json=body)

    return asked
