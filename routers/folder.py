"""Folders with a manifest: replaced as a whole, and read only as the bytes that were written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from coe.errors.files import ArtefactError

MANIFEST = "manifest.json"

MALFORMED = (AttributeError, LookupError, TypeError, ValueError, SafetensorError)
"""What making something of a manifest and its arrays raises where they are not what they say."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a folder must be, to be taken for one of these.

    Parameters
    ----------
    noun : what the folder holds, in messages.
    schema : number of the layout, which the manifest must repeat.
    remedy : what to do about a folder of another schema, in messages.
    kind : a word that the manifest must repeat; ``None``: it must have none.
    largest_bytes : a larger file is refused unread.
    """

    noun: str
    schema: int
    remedy: str
    kind: str | None = None
    largest_bytes: int = 2**30


def is_of(folder: Path, form: Form) -> bool:
    """Whether the folder has a manifest of this kind, of whatever schema."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == form.kind


def ensure_replaceable(folder: Path, form: Form) -> None:
    """Nothing, where `write` may put a folder of this form: on one of its kind, or on nothing.

    Raises
    ------
    ArtefactError
        ``folder`` exists and is something else.
    """
    if folder.exists() and not is_of(folder, form):
        raise ArtefactError(f"{folder} exists and is not a {form.noun}: it is left alone")


def write(
    folder: Path,
    form: Form,
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes],
    check: Callable[[Path], None] = lambda staging: None,
) -> None:
    """Write files and their manifest; ``folder`` is replaced as a whole or not at all.

    Whoever reads during the exchange may find no folder for a moment.

    Parameters
    ----------
    manifest : what it says beside schema, kind and the hash of every file.
    check : called with the folder under its temporary name; what it raises stops the exchange.

    Raises
    ------
    ArtefactError
        ``folder`` exists and is not of this form, so it is left alone; or it cannot be written.
    TypeError, ValueError
        The manifest cannot be said in JSON.
    """
    ensure_replaceable(folder, form)
    folder = Path(os.path.realpath(folder))  # resolve() raises on a link to itself
    files = {**files, MANIFEST: _document(form, manifest, files)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ArtefactError(f"{folder}: cannot be written: {error}") from error
    try:
        staging.chmod(0o755)
        for name, content in files.items():
            (staging / name).write_bytes(content)
        check(staging)
        _exchange(staging, folder)
    except OSError as error:
        raise ArtefactError(f"{folder}: cannot be written: {error}") from error
    finally:
        # after the exchange there is nothing under this name
        shutil.rmtree(staging, ignore_errors=True)


def read(
    folder: Path, form: Form, names: Collection[str]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the content of these files, each checked against its hash.

    Raises
    ------
    ArtefactError
        A file is absent, altered, too large, or there though nobody named it; or the manifest is
        malformed, of another kind or of another schema.
    """
    try:
        manifest = json.loads(_content(folder / MANIFEST, form))
        if isinstance(manifest, dict) and manifest.get("kind") != form.kind:
            raise ArtefactError(f"{folder} is not a {form.noun}: its kind is another")
        if not isinstance(manifest, dict) or manifest.get("schema") != form.schema:
            raise ArtefactError(f"{folder}: manifest schema is not {form.schema}: {form.remedy}")
        files = {name: _content(folder / name, form) for name in names}
        present = {path.name for path in folder.iterdir()}
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{folder}: not a readable {form.noun}: {error}") from error
    promised = manifest.get("files")
    for name, content in files.items():
        if not isinstance(promised, dict) or promised.get(name) != _fingerprint(content):
            raise ArtefactError(f"{folder}/{name}: not the bytes the manifest promises")
    for name in sorted(present - {MANIFEST, *names}):
        raise ArtefactError(f"{folder}/{name}: not a part of the {form.noun}: move it elsewhere")
    return manifest, files


def identity(folder: Path) -> str:
    """The sha256 of a folder's manifest, which holds the hash of every file.

    Raises
    ------
    ArtefactError
        There is no manifest that can be read.
    """
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise ArtefactError(f"{folder}: no readable manifest: {error.strerror}") from error


def _document(form: Form, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    whole = {"schema": form.schema, "kind": form.kind, **manifest}
    if form.kind is None:
        del whole["kind"]
    whole["files"] = {name: _fingerprint(content) for name, content in files.items()}
    return (json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _content(path: Path, form: Form) -> bytes:
    if (size := path.stat().st_size) > form.largest_bytes:
        raise ValueError(f"{path.name} has {size} bytes, more than {form.largest_bytes}")
    return path.read_bytes()


def _exchange(staging: Path, folder: Path) -> None:
    if not folder.exists():
        os.replace(staging, folder)
        return
    retired = staging.with_name(staging.name + "-old")
    os.replace(folder, retired)
    try:
        os.replace(staging, folder)
    except OSError:
        os.replace(retired, folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _fingerprint(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
