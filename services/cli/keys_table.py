"""API keys made, listed and taken back on the command line."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from rich.table import Table

from coe.access.keys import digest_of, minted
from coe.errors.files import ConfigError
from coe.services.access.keyfile import KeyFile, KeyRecord
from coe.services.access.porter import key_file
from coe.services.cli.console import configuration, print_json, results, say, tell

_UNIT_S: Final = {"m": 60, "h": 3600, "d": 86_400}
_SPAN: Final = re.compile(r"(\d{1,6})([mhd])")
_WHOLE: Final = frozenset({"id", "role", "state", "until", "a minute"})
_UNITS: Final = ("requests", "tokens", "joules")


def make(config: Path | None, wish: Mapping[str, Any], expires: str | None, as_json: bool) -> None:
    """Keep a new key, and print it.

    Parameters
    ----------
    wish : fields of the key's record.

    Raises
    ------
    ConfigError
        A wish is malformed, an expert is unknown, or the key cannot be kept.
    """
    settings = configuration(config, quiet=True)
    if strange := sorted({*(wish["models"] or ())} - settings.specs.keys()):
        known = ", ".join(settings.specs)
        raise ConfigError(f"--models: there is no expert {', '.join(strange)}, only {known}")
    file, now_s = key_file(settings), time.time()
    key_id, shown = minted(secrets.token_bytes)
    try:
        record = KeyRecord(
            id=key_id,
            digest=digest_of(file.pepper, shown).hex(),
            created_s=now_s,
            expires_s=None if expires is None else _moment(expires, now_s),
            **wish,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"--{first['loc'][0]}: {first['msg']}") from None
    file.add(record)
    if as_json:
        print_json({"key": shown, **document(record, now_s)})
        return
    tell(shown)
    say(f"key {key_id}: kept in {file.path} as a digest, so it is not shown again")


def show(config: Path | None, as_json: bool) -> None:
    """Print all keys.

    Raises
    ------
    ConfigError
        As `KeyFile.records`.
    """
    file, now_s = _file(config), time.time()
    documents = [document(record, now_s) for record in file.records()]
    if as_json:
        print_json({"file": str(file.path), "keys": documents})
        return
    if not documents:
        say(f"{file.path} holds none: make one with `coe keys create`")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("id", "name", "tenant", "role", "models", "state", "until", "a minute"):
        # an id is copied from here, so it stands on one line however narrow that is
        table.add_column(column, no_wrap=column in _WHOLE, overflow="fold")
    for row in documents:
        models = "all" if row["models"] is None else "\n".join(row["models"])
        rates = "\n".join(f"{value:g} {unit}" for unit, value in row["per_minute"].items())
        cells = (row["id"], row["name"], row["tenant"], row["role"], models, row["state"])
        table.add_row(*cells, _until(row["expires"], now_s), rates)
    results.print(table)


def take_back(config: Path | None, key_id: str, as_json: bool) -> None:
    """Revoke a key.

    Raises
    ------
    ConfigError
        As `KeyFile.revoke`.
    """
    now_s = time.time()
    record = _file(config).revoke(key_id, now_s)
    if as_json:
        print_json(document(record, now_s))
    else:
        tell(f"{record.id}: revoked")


def document(record: KeyRecord, now_s: float) -> dict[str, Any]:
    """A key in words, without its digest."""
    rates = {unit: getattr(record, f"{unit}_per_minute") for unit in _UNITS}
    return {
        "id": record.id,
        "name": record.name,
        "tenant": record.tenant,
        "role": record.role,
        "models": record.models,
        "overrides": record.overrides,
        "state": _state(record, now_s),
        "created": _written(record.created_s),
        "expires": _written(record.expires_s),
        "revoked": _written(record.revoked_s),
        "per_minute": {unit: rate for unit, rate in rates.items() if rate is not None},
    }


def _file(config: Path | None) -> KeyFile:
    return key_file(configuration(config, quiet=True))


def _state(record: KeyRecord, now_s: float) -> str:
    if record.revoked_s is not None:
        return "revoked"
    return "expired" if record.expires_s is not None and now_s >= record.expires_s else "valid"


def _written(moment_s: float | None) -> str | None:
    if moment_s is None:
        return None
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="seconds")


def _until(expires: str | None, now_s: float) -> str:
    """A time as short as will do: the day, and where that is near also the minute, in UTC."""
    if expires is None:
        return ""
    near = abs(datetime.fromisoformat(expires).timestamp() - now_s) < _UNIT_S["d"]
    return expires[:16].replace("T", "\n") if near else expires[:10]


def _moment(text: str, now_s: float) -> float:
    """Seconds since 1970 of a span from now or of a time; without a zone it is UTC."""
    try:
        if span := _SPAN.fullmatch(text):
            moment_s = now_s + int(span[1]) * _UNIT_S[span[2]]
        else:
            moment = datetime.fromisoformat(text)
            moment_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"--expires: {text!r} is neither a span, such as 90d or 12h, nor a time, "
            "such as 2027-01-31T00:00Z"
        ) from error
    if moment_s <= now_s:
        raise ConfigError(f"--expires: {text!r} is over: the key would be void from the start")
    return moment_s
