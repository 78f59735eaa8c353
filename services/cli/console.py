"""What every verb shares: where things are printed, and how errors end the program."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from coe.config import DATA, Config, find_config, load_config
from coe.errors import CoeError
from coe.errors.callers import RequestError
from coe.errors.files import (
    ConfigError,
    MeasurementsError,
    OutcomesError,
    PlanError,
    SimulationError,
)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="coe.yaml; by default $COE_CONFIG, ./coe.yaml, then the embedded default.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]

_WRONG_INPUT = (
    ConfigError,
    MeasurementsError,
    OutcomesError,
    PlanError,
    RequestError,
    SimulationError,
)

results = Console(highlight=False, soft_wrap=True)
"""What a verb was asked for, for people."""


class _Notes(Console):
    """Remarks that nobody reads any more are dropped; what is at work goes on."""

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)

    def forget(self) -> None:
        """Drop what could not be written; else the next remark would bring it along."""
        self._buffer.clear()


notes = _Notes(stderr=True, highlight=False, soft_wrap=True)
"""Progress, remarks and errors, on standard error."""


def say(line: str) -> None:
    """One remark on standard error; where that takes none, as on a full disk, it is not said."""
    try:
        notes.print(line, markup=False)
    except OSError:
        notes.forget()


def tell(line: str) -> None:
    """One line of a result on standard output."""
    results.print(line, markup=False)


def configuration(path: Path | None, quiet: bool = False) -> Config:
    """The configuration to use; says which one unless ``quiet``."""
    found = find_config(path)
    config = load_config(found)
    if not quiet:
        say(f"configuration: {'embedded default' if found.parent == DATA else found}")
    return config


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def errors_explained() -> Iterator[None]:
    """End the program with one line and the right exit code when something is wrong.

    2 for what the user can correct in the call or the files, 1 for everything else.
    """
    try:
        yield
    except CoeError as error:
        notes.print(f"error: {error}", markup=False, style="red")
        raise typer.Exit(2 if isinstance(error, _WRONG_INPUT) else 1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def progress_bar() -> Progress:
    """Counted work: name, bar, done of total, elapsed, remaining."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=notes,
    )
