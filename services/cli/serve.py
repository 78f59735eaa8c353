"""``coe serve``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from coe.config import Config, find_config
from coe.errors.files import ConfigError
from coe.services.access.exposure import check_exposure
from coe.services.access.porter import porter_of
from coe.services.access.secrets import secrets_of
from coe.services.access.tls import private
from coe.services.cli.console import configuration, say
from coe.services.enduring import Enduring
from coe.services.entrance.drain import Drain
from coe.services.garbage import collect_less
from coe.services.gateway import Gateway
from coe.services.live.reloads import kept_at
from coe.services.observing.opening import Observers, observing
from coe.services.runnable import Say
from coe.services.runtime import Runtime, serving
from coe.services.sockets.server import listening, reserved, server
from coe.services.workers.family import Family, raised

_HURRIED_S = 1.8


def run(
    config_path: Path | None,
    host: str | None,
    port: int | None,
    without_keys: bool = False,
    n_workers: int = 1,
) -> None:
    """Serve until interrupted, by one process or by several.

    Raises
    ------
    ConfigError
        The configuration is wrong or the address is taken; or as `check_exposure`.
    """
    config, path = configuration(config_path), find_config(config_path)
    listener = listen(
        config.gateway.host if host is None else host,
        config.gateway.port if port is None else port,
        listening if n_workers == 1 else reserved,
    )
    runner = asyncio.Runner(loop_factory=loop)
    with runner, listener:
        if remark := check_exposure(config, listener.getsockname()[0], without_keys):
            say(remark)
        if n_workers == 1:
            runner.run(_serve(config, path, listener))
        else:
            runner.run(_serve_by_several(config, path, listener, n_workers))


async def _serve(config: Config, path: Path, listener: socket.socket) -> None:
    logging_to = (config.logging, sys.stdout.fileno())
    async with (
        serving(config, say) as runtime,
        kept_at(path, runtime, say) as reloads,
        observing(config.telemetry, logging_to, secrets_of(config)) as observers,
    ):
        _, drain = gateway_of(runtime, observers, say, log_config=None)
        url = _url(config, listener)
        say(f"listening on {url}/v1 (Ctrl-C ends)")
        announcement = asyncio.create_task(_announce(runtime, url))
        ending_on_signals(drain)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloads.soon)
        collect_less()
        try:
            await drain.server.serve(sockets=[listener])
            await drain.over()
        finally:
            announcement.cancel()


async def _serve_by_several(
    config: Config, path: Path, listener: socket.socket, n_workers: int
) -> None:
    command = [sys.executable, "-m", "coe.services.cli.worker", "--config", str(path)]
    url, ready = _url(config, listener), f"{n_workers} workers are ready. "
    async with raised(config, listener, command, n_workers, say) as family:
        event_loop, asked = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            event_loop.add_signal_handler(number, family.end, number)
        event_loop.add_signal_handler(signal.SIGHUP, asked.set)
        say(f"listening on {url}/v1 (Ctrl-C ends)")
        beside = [
            asyncio.create_task(family.watch(path, asked)),
            asyncio.create_task(_announce_all(family, ready + how_to_ask(config, url))),
        ]
        try:
            await family.run()
        finally:
            for task in beside:
                task.cancel()


async def _announce_all(family: Family, words: str) -> None:
    with Enduring("saying who is ready"):
        await family.all_ready.wait()
        for host in family.hosts.values():
            await host.settled()
        say(words)


def ending_on_signals(drain: Drain) -> None:
    """Have SIGINT and SIGTERM end a gateway; the second one at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, _asked_to_end, drain, number)


def _asked_to_end(drain: Drain, number: signal.Signals) -> None:
    """End, or do so at once; what is not done soon after that is left as it is."""
    if drain.begun:
        # the ledger is whole whenever the process ends, and engines end with it
        asyncio.get_running_loop().call_later(_HURRIED_S, os._exit, 1)
    # nobody shares requests out to a gateway in somebody's terminal
    drain.begin(0.0 if number == signal.SIGINT else None)


async def _announce(runtime: Runtime, url: str) -> None:
    """Say how to ask, once somebody can answer."""
    with Enduring("saying who is ready"):
        await runtime.fleet.started()
        if runtime.fleet.can_answer:
            router = runtime.engine.router
            model = "auto" if router.trained or router.stocks else next(iter(router.specs))
            say("ready. " + how_to_ask(runtime.config, url, model))
            return
        way = "coe doctor" if runtime.fleet.copies is None else "coe fleet status"
        say(f"no expert is ready: `{way}` says why")


def how_to_ask(config: Config, url: str, model: str = "auto") -> str:
    """Commands that ask a gateway at ``url``; where it wants a key, they show that of the user.

    Parameters
    ----------
    model : an expert, where the router knows none and is asked in vain.
    """
    tls, asks = config.gateway.tls, config.access is not None
    flags = "" if url == own_address(config) else f" --url {url}"
    flags += "" if model == "auto" else f" --model {model}"
    more = f"--cacert {tls.certificate} " if tls else ""
    more += """-H "authorization: Bearer $COE_API_KEY" """ if asks else ""
    return (
        f"Ask it{', with a key in COE_API_KEY' if asks else ''}:\n"
        f"  {_own_name()} chat{flags} 'What is 17 * 6?'\n"
        f"  curl {url}/v1/chat/completions {more}-H 'content-type: application/json' "
        f"""-d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'"""
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
    path: Path | None = None,
) -> AsyncIterator[tuple[str, Runtime]]:
    """Address and runtime of a gateway that lives in this event loop for the time being.

    Parameters
    ----------
    path : the file that it is kept at; ``None``: it stays as it is.
    now : as in `coe.services.runtime.serving`.

    Raises
    ------
    ConfigError, ArtefactError
        As `coe.services.runtime.serving`.
    """
    async with serving(config, say, now) as runtime, AsyncExitStack() as stack:
        if path is not None:
            await stack.enter_async_context(kept_at(path, runtime, say))
        observers = await stack.enter_async_context(observing(config.telemetry))
        _, drain = gateway_of(runtime, observers, say)
        task = asyncio.create_task(drain.server.serve(sockets=[listener]))
        try:
            yield _url(config, listener), runtime
        finally:
            drain.begin(0.0)
            await task
            await drain.over()


def gateway_of(
    runtime: Runtime, observers: Observers, say: Say, **options: Any
) -> tuple[Gateway, Drain]:
    """The gateway of a runtime, its server, and how it ends."""
    section, metrics = runtime.config.gateway, observers.metrics
    gateway = Gateway(
        runtime,
        metrics,
        tell=observers.tell,
        sample=observers.sample,
        propagate=observers.propagate,
        porter=porter_of(runtime.config, say),
    )
    if runtime.reloads is not None:
        runtime.reloads.tell(metrics.reloaded)
    if section.tls is not None:
        options["ssl_context_factory"] = private(section.tls)
    bounds = section.head_timeout_s, section.stall_timeout_s
    running = server(gateway.app(), *bounds, observers.unread, **options)
    ends = Drain(gateway.door, running, section.drain_accept_s, section.drain_answers_s, say)
    return gateway, ends


def listen(
    host: str, port: int, take: Callable[[str, int], socket.socket] = listening
) -> socket.socket:
    """A listening socket, or what else is taken there; port 0 takes a free one.

    Raises
    ------
    ConfigError
        The address is taken or not this machine's.
    """
    try:
        return take(host, port)
    except OSError as error:
        # create_server's own words say the address once more
        why = (error.strerror or str(error)).partition(" (while")[0]
        raise ConfigError(
            f"cannot listen on {host}:{port}: {why}: choose another with `coe serve --port`, or "
            "in section `gateway` of coe.yaml"
        ) from error


def address(host: str, port: int, scheme: str = "http") -> str:
    """``http://host:port``, an IPv6 host in brackets."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _url(config: Config, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return address(host, port, "https" if config.gateway.tls else "http")


def own_address(config: Config) -> str:
    """Where the configured gateway listens."""
    section = config.gateway
    return address(section.host, section.port, "https" if section.tls else "http")


def loop() -> asyncio.AbstractEventLoop:
    """A new event loop."""
    import uvloop

    return uvloop.new_event_loop()
