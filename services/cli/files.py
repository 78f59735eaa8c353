"""Verbs about what lies in files: weights, documents made searchable, device profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coe.device import Scope
from coe.services.cli.console import JsonOption, errors_explained

weights_app = typer.Typer(help="Fetch and check the weights of embedded experts.")
index_app = typer.Typer(help="Make documents searchable, and search them.")
devices_app = typer.Typer(
    help="What devices take: profiles that ship, and profiles from measurements."
)


@weights_app.command("list")
def weights_list(as_json: JsonOption = False) -> None:
    """What the manifest holds, and what is here."""
    from coe.services.cli.weights import show

    with errors_explained():
        show(as_json)


@weights_app.command("fetch")
def weights_fetch(
    names: Annotated[list[str] | None, typer.Argument(help="All by default.")] = None,
    optional: Annotated[
        bool, typer.Option("--optional", help="Succeed when at least one is here.")
    ] = False,
) -> None:
    """Fetch what is missing, by pinned hash."""
    from coe.services.cli.weights import fetch_all

    with errors_explained():
        fetch_all(names, optional)


@weights_app.command("verify")
def weights_verify(as_json: JsonOption = False) -> None:
    """Check the hash of everything that is here."""
    from coe.services.cli.weights import verify_all

    with errors_explained():
        verify_all(as_json)


@index_app.command("build")
def index_build(
    documents: Annotated[
        Path, typer.Argument(help="A folder or a file: .txt, .md, .html, .jsonl, .pdf.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the index.")],
    no_dense: Annotated[
        bool, typer.Option("--no-dense", help="Without vectors: search by words alone.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Write no index when a document cannot be read.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read documents, cut them into passages, write an index."""
    from coe.services.cli.index import build

    with errors_explained():
        build(documents, out, not no_dense, strict, as_json)


@index_app.command("search")
def index_search(
    index: Annotated[Path, typer.Argument(help="Folder of the index.")],
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Most passages to show.")] = 5,
    mode: Annotated[str, typer.Option(help="hybrid, bm25 or dense.")] = "hybrid",
    as_json: JsonOption = False,
) -> None:
    """Find passages, best first."""
    from coe.services.cli.index import search

    with errors_explained():
        search(index, query, k, mode, as_json)


@devices_app.command("list")
def devices_list(as_json: JsonOption = False) -> None:
    """The device profiles that ship; any coe.yaml may name them under `device:`."""
    from coe.services.cli.devices import show

    with errors_explained():
        show(as_json)


@devices_app.command("fit")
def devices_fit(
    measurements: Annotated[
        Path,
        typer.Argument(
            help="CSV or Parquet: prompt_tokens, output_tokens, ttft_ms, latency_ms, "
            "energy_j or power_w, and phase (prefill, decode) for rows that are not whole requests."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Of the profile; the file's by default.")] = None,
    scope: Annotated[Scope, typer.Option(help="What the watts cover.")] = "board",
    idle_w: Annotated[float, typer.Option(min=0, help="Idle power, taken off.")] = 0.0,
    prefill_w: Annotated[
        float | None, typer.Option(min=0, help="Watts above idle, where the table has none.")
    ] = None,
    decode_w: Annotated[
        float | None, typer.Option(min=0, help="Watts above idle, where the table has none.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the rows that are held out.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Fit a device profile to measured requests; prints a section for `devices:` of coe.yaml."""
    from coe.services.cli.devices import fit_profile

    with errors_explained():
        fit_profile(measurements, name, scope, idle_w, (prefill_w, decode_w), seed, as_json)
