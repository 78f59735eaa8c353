"""``coe serve``."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from coe.config import Config
from coe.errors import ConfigError
from coe.services.cli.console import configuration, say
from coe.services.gateway import Gateway
from coe.services.runnable import Say
from coe.services.runtime import Runtime, serving
from coe.services.server import Server, listening, server


def run(config_path: Path | None, host: str | None, port: int | None) -> None:
    """Serve until interrupted.

    Raises
    ------
    ConfigError
        The configuration is wrong or the address is taken.
    """
    config = configuration(config_path)
    listener = listen(
        config.gateway.host if host is None else host, config.gateway.port if port is None else port
    )
    runner = asyncio.Runner(loop_factory=_loop)
    with runner, listener:
        runner.run(_serve(config, listener))


async def _serve(config: Config, listener: socket.socket) -> None:
    async with serving(config, say) as runtime:
        gateway = _server(runtime)
        say(f"listening on {_url(listener)}/v1 (Ctrl-C ends)")
        announcement = asyncio.create_task(_announce(runtime, _url(listener)))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, gateway.handle_exit, number, None)
        try:
            await gateway.serve(sockets=[listener])
        finally:
            announcement.cancel()


async def _announce(runtime: Runtime, url: str) -> None:
    """Say how to ask, once somebody can answer."""
    await runtime.fleet.started()
    if not runtime.fleet.can_answer:
        way = "coe doctor" if runtime.fleet.copies is None else "coe fleet status"
        say(f"no expert is ready: `{way}` says why")
        return
    say(
        "ready. Ask it:\n"
        f"  {_own_name()} chat 'What is 17 * 6?'\n"
        f"  curl {url}/v1/chat/completions -H 'content-type: application/json' "
        """-d '{"model": "auto", "messages": [{"role": "user", "content": "Hello!"}]}'"""
    )


def _own_name() -> str:
    """How to call this program from this folder in another terminal."""
    program = Path(sys.argv[0]).absolute()
    if program.name == "coe" and program.is_relative_to(Path.cwd()):
        return str(program.relative_to(Path.cwd()))
    return "coe"


@asynccontextmanager
async def gateway_on(
    config: Config,
    listener: socket.socket,
    say: Say = lambda line: None,
    now: Callable[[], float] = time.monotonic,
) -> AsyncIterator[tuple[str, Runtime]]:
    """Address and runtime of a gateway that lives in this event loop for the time being.

    Parameters
    ----------
    now : as in `coe.services.runtime.serving`.

    Raises
    ------
    ConfigError, ArtefactError
        As `coe.services.runtime.serving`.
    """
    async with serving(config, say, now) as runtime:
        gateway = _server(runtime)
        task = asyncio.create_task(gateway.serve(sockets=[listener]))
        try:
            yield _url(listener), runtime
        finally:
            gateway.should_exit = True
            await task


def _server(runtime: Runtime) -> Server:
    head_timeout_s = runtime.config.gateway.head_timeout_s
    return server(Gateway(runtime).app(), head_timeout_s, timeout_graceful_shutdown=20)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises
    ------
    ConfigError
        The address is taken or not this machine's.
    """
    try:
        return listening(host, port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}: choose another with --port"
        ) from error


def address(host: str, port: int) -> str:
    """``http://host:port``, an IPv6 host in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return address(host, port)


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()
