"""The report as files."""

from __future__ import annotations

from pathlib import Path

from coe.evaluation import Evaluation
from coe.services.report.curve import GateCurve
from coe.services.report.errors import ReportError
from coe.services.report.page import page
from coe.services.report.picture import PLOTS


def write_report(
    evaluation: Evaluation, path: Path, gate_curve: GateCurve | None = None
) -> list[Path]:
    """Write the page to ``path``, and ``<stem>-<plot>.png`` and ``.svg`` of its plots beside it.

    A plot without anything to show is left out, its files of an earlier report are removed, and
    the page says why. The same evaluation gives the same bytes. Each file is written as a
    whole or not at all, the page last.

    Parameters
    ----------
    gate_curve : what the retrieval gate does, where outcomes with and without retrieval are
        known.

    Returns
    -------
    The files: the page, then the pictures.

    Raises
    ------
    ReportError
        Matplotlib is not installed, a file cannot be written, or the evaluation lacks the arms
        that a report compares.
    """
    try:
        from coe.services.report.plots import draw
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise ReportError(
            "a report has pictures, and they need Matplotlib: pip install 'coe-router[plots]'"
        ) from error
    pictures = {picture.name: picture for picture in draw(evaluation, gate_curve)}
    files = {}
    for name, picture in pictures.items():
        files[_beside(path, name, "png")] = picture.png
        files[_beside(path, name, "svg")] = picture.svg.encode()
    text = page(evaluation, pictures, gate_curve)
    for file, content in files.items():
        write(file, content)
    possible = {_beside(path, name, suffix) for name in PLOTS for suffix in ("png", "svg")}
    for stale in possible - files.keys():
        if stale.is_file():
            stale.unlink()
    write(path, text.encode())
    return [path, *files]


def _beside(path: Path, name: str, suffix: str) -> Path:
    return path.with_name(f"{path.stem}-{name}.{suffix}")


def write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all.

    Raises
    ------
    ReportError
        It cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        if partial.is_file():
            partial.unlink()
        raise ReportError(f"{path}: cannot be written: {error.strerror or error}") from error
