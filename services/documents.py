"""The owner's documents: which files of a folder are read, and what could not be."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coe.errors.files import ConfigError
from coe.routers.chunk import Document
from coe.routers.retrieve import is_index
from coe.services.formats import READERS, Omission

MAX_BYTES = 64 << 20
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read, in the order of the sources, and what was left out."""

    documents: tuple[Document, ...]
    omissions: tuple[Omission, ...]

    @property
    def skipped(self) -> list[Omission]:
        """What is no document."""
        return [omission for omission in self.omissions if not omission.failed]

    @property
    def failed(self) -> list[Omission]:
        """What should be one and could not be read."""
        return [omission for omission in self.omissions if omission.failed]


def read_documents(
    path: Path,
    strict: bool = False,
    max_bytes: int = MAX_BYTES,
    progress: Callable[[int, int], None] = lambda n_done, n_files: None,
) -> Reading:
    """The documents of a folder and of the folders in it, or of one file.

    Hidden names, retrieval indices and linked folders are passed over. A link to a file is followed
    if it stays in the folder and leads to a file not read under another name. All text is held in
    memory.

    Parameters
    ----------
    strict : whether a file that fails ends the reading; without, it is an omission.
    max_bytes : a larger file fails.
    progress : called with the number of files done so far, and of all.

    Raises
    ------
    ConfigError
        ``path`` is absent, of an unknown format, or without any readable document; or, under
        ``strict``, something failed. The message names it.
    """
    if path.is_dir():
        files, omissions = _files(path)
    elif path.is_file():
        _check_format(path)
        files, omissions = {path.name: path}, []
    else:
        raise ConfigError(f"{path}: there is no such file or folder")
    documents: list[Document] = []
    for n_done, (source, file) in enumerate(files.items(), start=1):
        for found in _read(file, source, max_bytes):
            if isinstance(found, Omission):
                omissions.append(found)
            else:
                documents.append(found)
        progress(n_done, len(files))
    reading = Reading(tuple(documents), tuple(omissions))
    _check(path, reading, strict)
    return reading


def _check_format(path: Path) -> None:
    if path.suffix.lower() not in READERS:
        raise ConfigError(f"{path}: cannot be read: only {', '.join(READERS)} are")


def _check(path: Path, reading: Reading, strict: bool) -> None:
    failed = [f"{omission.source}: {omission.reason}" for omission in reading.failed]
    named = "\n".join(failed[:_NAMED])
    if len(failed) > _NAMED:
        named += f"\nand {len(failed) - _NAMED} more"
    if strict and failed:
        raise ConfigError(f"{path}: not everything could be read:\n{named}")
    if not reading.documents:
        reasons = f":\n{named}" if failed else f": {', '.join(READERS)} are read"
        raise ConfigError(f"{path} holds no document with text{reasons}")


def _read(file: Path, source: str, max_bytes: int) -> Iterator[Document | Omission]:
    """The documents of one file that hold text, and what is wrong with it."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            yield Omission(source, "not a regular file", failed=False)
            return
        if status.st_size > max_bytes:
            reason = f"{status.st_size:,} bytes, more than the {max_bytes:,} allowed: split it"
            yield Omission(source, reason)
            return
        content = file.read_bytes()
    except OSError as error:
        yield Omission(source, f"cannot be read: {error.strerror or error}")
        return
    for found in READERS[file.suffix.lower()](content, source):
        if isinstance(found, Document) and not any(s.text.strip() for s in found.sections):
            yield Omission(found.source, "holds no text", failed=False)
        else:
            yield found


def _files(folder: Path) -> tuple[dict[str, Path], list[Omission]]:
    """Files to read by source, sorted, each under one name; and what is passed over."""
    root, omissions = folder.resolve(), []
    files: dict[str, Path] = {}

    def unreadable(error: OSError) -> None:
        name = os.path.relpath(error.filename, root)
        omissions.append(Omission(_source(name), f"cannot be read: {error.strerror}"))

    for parent, folders, names in os.walk(root, onerror=unreadable):
        for name in [name for name in folders if not name.startswith(".")]:
            inner = Path(parent, name)
            if inner.is_symlink() or is_index(inner):
                reason = "a link to a folder" if inner.is_symlink() else "a retrieval index"
                omissions.append(Omission(_source_in(root, inner), reason, failed=False))
                folders.remove(name)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                file = Path(parent, name)
                files[_source_in(root, file)] = file
    return _chosen(root, dict(sorted(files.items())), omissions)


def _chosen(
    root: Path, files: dict[str, Path], omissions: list[Omission]
) -> tuple[dict[str, Path], list[Omission]]:
    taken: dict[Path, str] = {}
    chosen: dict[str, Path] = {}
    # the file itself before a link to it
    for source, file in sorted(files.items(), key=lambda item: item[1].is_symlink()):
        target = Path(os.path.realpath(file))  # resolve() raises on a link to itself
        if file.suffix.lower() not in READERS:
            reason = f"format {file.suffix or 'without suffix'} is not read"
        elif not target.is_relative_to(root):
            reason = "a link that leaves the folder"
        elif target in taken:
            reason = f"another name of {taken[target]}"
        else:
            taken[target] = source
            chosen[source] = file
            continue
        omissions.append(Omission(source, reason, failed=False))
    omissions.sort(key=lambda omission: omission.source)
    return {source: chosen[source] for source in sorted(chosen)}, omissions


def _source_in(root: Path, path: Path) -> str:
    return _source(path.relative_to(root).as_posix())


def _source(name: str) -> str:
    # a file name need not be text
    return os.fsencode(name).decode(errors="replace")
