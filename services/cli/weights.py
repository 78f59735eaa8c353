"""``coe weights list | fetch | verify``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from coe.config import DATA
from coe.environment import weights_home
from coe.errors.files import ConfigError, WeightsError
from coe.services.cli.console import notes, print_json, say, tell
from coe.services.weights import Weights, fetch, locate, read_manifest, verified


def show(as_json: bool) -> None:
    """List the manifest."""
    rows = []
    for weights in _manifest().values():
        path = locate(weights, weights_home())
        rows.append(_row(weights) | {"path": None if path is None else str(path)})
    if as_json:
        print_json(rows)
        return
    for row in rows:
        where = row["path"] or "not here: coe weights fetch " + str(row["name"])
        tell(f"{row['name']}  {row['megabytes']} MB  {row['licence']}")
        tell(f"  {row['about']}\n  {where}")


def fetch_all(names: Sequence[str] | None, optional: bool) -> None:
    """Fetch these, or all.

    Raises
    ------
    ConfigError
        A name is not in the manifest.
    WeightsError
        Something could not be fetched; with ``optional``, only if nothing is here then.
    """
    manifest = _manifest()
    unknown = [name for name in names or () if name not in manifest]
    if unknown:
        raise ConfigError(f"unknown weights {', '.join(unknown)}; known: {', '.join(manifest)}")
    failures = []
    for name in names or manifest:
        try:
            path = _fetch(manifest[name])
        except WeightsError as error:
            failures.append(str(error))
        else:
            say(f"{name}: verified, {path}")
    here = any(locate(weights, weights_home()) for weights in manifest.values())
    if failures and not (optional and here):
        raise WeightsError("\n".join(failures))
    for failure in failures:
        say(f"going on without it: {failure}")


def verify_all(as_json: bool) -> None:
    """Check every file that is here.

    Raises
    ------
    WeightsError
        A file is not the promised bytes.
    """
    rows, wrong = [], []
    for weights in _manifest().values():
        status = "absent"
        if locate(weights, weights_home()):
            try:
                with nullcontext() if as_json else notes.status(f"hashing {weights.file}"):
                    verified(weights, weights_home())
                status = "verified"
            except WeightsError as error:
                status = "wrong"
                wrong.append(str(error))
        rows.append(_row(weights) | {"status": status})
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            tell(f"{row['name']}: {row['status']}")
    if wrong:
        raise WeightsError("\n".join(wrong))


def _fetch(weights: Weights) -> object:
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=notes) as bar:
        task = bar.add_task(weights.name, total=weights.n_bytes)
        return fetch(weights, weights_home(), lambda done: bar.update(task, completed=done), say)


def _manifest() -> dict[str, Weights]:
    return read_manifest(DATA / "weights.json")


def _row(weights: Weights) -> dict[str, object]:
    return {
        "name": weights.name,
        "megabytes": round(weights.n_bytes / 1e6),
        "licence": weights.licence,
        "sha256": weights.sha256,
        "about": weights.about,
    }
