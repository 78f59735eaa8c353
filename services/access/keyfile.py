"""The file of API keys: read whole, written whole, by one writer at a time."""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coe.access.caller import Caller, Rates, Role
from coe.access.keys import Key, Ring
from coe.errors.files import ConfigError
from coe.tenants import TENANT

_SCHEMA: Final = 1
_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class KeyRecord(BaseModel):
    """A key as the file has it; times are seconds since 1970."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$", repr=False)]
    name: Annotated[str, Field(max_length=100)] = ""
    tenant: Annotated[str, Field(pattern=f"{TENANT}|^$")] = ""
    role: Role = "user"
    models: list[str] | None = None
    overrides: bool = True
    created_s: float
    expires_s: float | None = None
    revoked_s: float | None = None
    requests_per_minute: _Rate | None = None
    tokens_per_minute: _Rate | None = None
    joules_per_minute: _Rate | None = None

    def key(self) -> Key:
        """The noun that a gateway works with."""
        rates = Rates(self.requests_per_minute, self.tokens_per_minute, self.joules_per_minute)
        caller = Caller(
            self.id,
            self.tenant,
            self.role,
            None if self.models is None else frozenset(self.models),
            self.overrides,
            rates,
        )
        digest = bytes.fromhex(self.digest)
        return Key(caller, digest, self.expires_s, self.revoked_s is not None)


class _Contents(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = Field(alias="schema", default=_SCHEMA)
    # tells a wrong pepper from wrong keys
    pepper: str = ""
    keys: list[KeyRecord] = Field(default=[])


@dataclass(frozen=True, slots=True)
class KeyFile:
    """API keys in a JSON file that its owner alone may read.

    Readers see all of a change or none of it. Writers wait for each other.

    Parameters
    ----------
    pepper : see `coe.access.keys`.
    """

    path: Path
    pepper: bytes = field(repr=False)

    def records(self) -> list[KeyRecord]:
        """All keys, the oldest first; none where there is no file.

        Raises
        ------
        ConfigError
            The file cannot be read, is damaged, or was written under another pepper.
        """
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}") from error
        try:
            contents = _Contents.model_validate_json(text)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
            raise ConfigError(
                f"{self.path}: no file of keys: {where} is wrong: put a copy back, or move it "
                "away and make new keys"
            ) from None
        if not hmac.compare_digest(contents.pepper, self._mark()):
            raise ConfigError(
                f"{self.path}: its keys were made under another pepper: give the one that they "
                "were made under, or move the file away and make new keys"
            )
        return contents.keys

    def ring(self) -> Ring:
        """All keys, as a gateway asks for them.

        Raises
        ------
        ConfigError
            As `records`.
        """
        return Ring(self.pepper, {record.id: record.key() for record in self.records()})

    def add(self, record: KeyRecord) -> None:
        """Keep another key.

        Raises
        ------
        ConfigError
            As `records`, the file cannot be written, or has a key of this id.
        """
        with self._changing() as records:
            if any(other.id == record.id for other in records):
                raise ConfigError(f"{self.path}: there is a key {record.id}")
            records.append(record)

    def revoke(self, key_id: str, now_s: float) -> KeyRecord:
        """Take a key back for good; one that was taken back before stays as it was.

        Raises
        ------
        ConfigError
            As `add`, or there is none of that id.
        """
        with self._changing() as records:
            for n, record in enumerate(records):
                if record.id == key_id:
                    if record.revoked_s is None:
                        records[n] = record.model_copy(update={"revoked_s": now_s})
                    return records[n]
            raise ConfigError(f"{self.path}: there is no key {key_id!r}: see `coe keys list`")

    @contextmanager
    def _changing(self) -> Iterator[list[KeyRecord]]:
        """The records, which are written when the block ends without an error."""
        lock = self.path.with_name(f"{self.path.name}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)) as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                records = self.records()
                yield records
                self._write(records)
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}") from error

    def _write(self, records: list[KeyRecord]) -> None:
        contents = _Contents(pepper=self._mark(), keys=records)
        document = contents.model_dump(by_alias=True)
        draft = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        try:
            with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                json.dump(document, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        finally:
            draft.unlink(missing_ok=True)

    def _mark(self) -> str:
        return hmac.digest(self.pepper, b"coe keys", "sha256").hex()[:16]
