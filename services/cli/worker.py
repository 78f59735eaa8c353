"""One worker: a gateway on a listener that it inherits, with what it is told over a line."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from pathlib import Path

import typer

from coe.config import Config, load_config
from coe.services.access.secrets import secrets_of
from coe.services.cli.console import errors_explained, say
from coe.services.cli.serve import ending_on_signals, gateway_of, loop
from coe.services.garbage import collect_less
from coe.services.live.reloads import Reloads
from coe.services.live.staying import staying
from coe.services.observing.opening import observing
from coe.services.runtime import serving
from coe.services.workers.line import Line
from coe.services.workers.member import Member

_BACKLOG = 2048


def main() -> None:
    """Serve until the line breaks, or a signal asks to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    for name in ("--index", "--listener", "--line"):
        parser.add_argument(name, type=int)
    given = parser.parse_args()
    try:
        with errors_explained():
            config = load_config(given.config)
            listener = socket.socket(fileno=given.listener)
            with asyncio.Runner(loop_factory=loop) as runner:
                end = socket.socket(fileno=given.line)
                runner.run(_serve(config, given.config, given.index, listener, end))
    except typer.Exit as explained:
        sys.exit(explained.exit_code)


async def _serve(
    config: Config, path: Path, index: int, listener: socket.socket, end: socket.socket
) -> None:
    member = Member()
    logging_to = (config.logging, sys.stdout.fileno())
    # one of them says what concerns all
    quiet = say if index == 0 else _unsaid
    line = member.line = await Line.on(end, member.verbs())
    listening = asyncio.create_task(line.run())
    switches = await member.joined()
    # one that takes the place of another goes by what the others go by
    config, _ = staying(member.config, config)
    async with (
        serving(config, quiet, means=member.means()) as runtime,
        observing(config.telemetry, logging_to, secrets_of(config)) as observers,
    ):
        reloads = Reloads(path, runtime, quiet)
        gateway, drain = gateway_of(runtime, observers, quiet, log_config=None)
        member.serve(gateway, reloads)
        for expert_id, switch in switches.items():
            runtime.engine.switches = runtime.engine.switches.turned(expert_id, switch)
        # each has answers of its own to wait for
        drain.say = lambda words: say(f"worker {index}: {words}")
        ending_on_signals(drain)
        # who started it is gone: nobody keeps the ledger any more
        listening.add_done_callback(lambda done: drain.begin(0.0))
        collect_less()
        # from now on connections come, and wait for the moment that it takes to begin
        listener.listen(_BACKLOG)
        line.tell("ready")
        await drain.server.serve(sockets=[listener])
        await drain.over()
        await reloads.close()
    listening.cancel()


def _unsaid(line: str) -> None:
    """What another worker says already."""


if __name__ == "__main__":
    main()
