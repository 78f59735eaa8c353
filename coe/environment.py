"""What the environment alone says: secrets that stand in no file, and folders of this user."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from coe.errors.files import ConfigError

_LEAST_SECRET = 32
# of an address with one
_PASSWORD = re.compile(r"[a-z]+://[^/@]*:([^/@]+)@")


def fleet_token(variable: str, create: bool = False) -> str:
    """The secret that the fleet's supervisor asks for: from its environment variable, else kept.

    Parameters
    ----------
    variable : name of the environment variable.
    create : make one and keep it, readable by this user alone, where there is none.

    Raises
    ------
    ConfigError
        There is none, it cannot be kept, or it cannot be sent in a header of HTTP.
    """
    if token := os.environ.get(variable, "").strip():
        return _sendable(token, variable)
    kept = _cache_home() / "fleet-token"
    try:
        if create and not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(kept, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32))
        return _sendable(kept.read_text().strip(), str(kept))
    except FileNotFoundError:
        raise ConfigError(
            f"no token for the fleet: export {variable} as it was for `coe fleet up`"
        ) from None
    except OSError as error:
        raise ConfigError(f"{kept}: {error.strerror}: export {variable}") from error


def admin_token(variable: str) -> str | None:
    """The secret that a gateway asks operators for; ``None`` where its variable is not set.

    Raises
    ------
    ConfigError
        It cannot be sent in a header of HTTP.
    """
    token = os.environ.get(variable, "").strip()
    return _sendable(token, variable) if token else None


def key_pepper(variable: str, kept: Path) -> bytes:
    """The secret under which API keys are kept: from its environment variable, else from a file.

    Parameters
    ----------
    kept : the file; made, readable by this user alone, where neither is there.

    Raises
    ------
    ConfigError
        It is short, cannot be kept, or everybody on this machine may read it.
    """
    if given := os.environ.get(variable, "").strip():
        return _long(given, variable)
    try:
        if not kept.exists():
            _keep(kept, secrets.token_hex(32))
        if kept.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ConfigError(f"{kept}: everybody may read it: chmod 600 {kept}")
        return _long(kept.read_text().strip(), str(kept))
    except OSError as error:
        raise ConfigError(f"{kept}: {error.strerror}: export {variable}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{kept}: it is no text in UTF-8: export {variable}") from error


def caller_key() -> str | None:
    """The key that this machine's user shows to gateways: ``COE_API_KEY``; ``None``: none.

    Raises
    ------
    ConfigError
        It cannot be sent in a header of HTTP.
    """
    key = os.environ.get("COE_API_KEY", "").strip()
    return _sendable(key, "COE_API_KEY") if key else None


def secrets_in(variables: Iterable[str]) -> tuple[str, ...]:
    """The values of those of these variables that are set, and the passwords of those with one."""
    values = [value for name in variables if (value := os.environ.get(name, "").strip())]
    passwords = [found[1] for value in values if (found := _PASSWORD.match(value))]
    return (*values, *passwords, *map(unquote, passwords))


def redis_url(variable: str) -> str:
    """The address of the Redis that keeps the ledger, which may hold a password.

    Raises
    ------
    ConfigError
        The variable is not set.
    """
    if url := os.environ.get(variable):
        return url
    raise ConfigError(
        f"store: environment variable {variable} is not set: export the address of the ledger's "
        "Redis, such as redis://127.0.0.1:6379/0"
    )


def state_home() -> Path:
    """Where is kept what must not be lost: ``coe`` in ``$XDG_STATE_HOME``, else ~/.local/state."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "coe"


def weights_home() -> Path:
    """Where fetched weights are kept: ``$COE_WEIGHTS``, else the user's cache folder."""
    if named := os.environ.get("COE_WEIGHTS"):
        return Path(named)
    return _cache_home() / "weights"


def _keep(path: Path, text: str) -> None:
    """A new file of this user's alone; one that somebody else made meanwhile stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(text)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _long(secret: str, source: str) -> bytes:
    if len(secret) < _LEAST_SECRET:
        raise ConfigError(f"{source}: a secret has {_LEAST_SECRET} signs at least")
    return secret.encode()


def _sendable(token: str, source: str) -> str:
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"{source} holds no token: only letters, digits and signs of ASCII will do"
        )
    return token


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coe"
