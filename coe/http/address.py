"""Where a request goes to, as a connection, a name and a path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
_ESCAPED: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SAFE: Final = "/%:@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True)
class Origin:
    """A server: requests to the same one may share a connection."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class Address:
    """A URL, taken apart.

    Parameters
    ----------
    named : the server as its requests name it.
    path : as it is sent, escaped.
    """

    origin: Origin
    named: str
    path: str


@lru_cache(maxsize=4096)
def address_of(url: str) -> Address:
    """The address that a URL without a query says.

    Raises
    ------
    ValueError
        It is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("an address begins with http:// or https:// and a host")
    host, port = _ascii(parts.hostname), parts.port or _PORTS[parts.scheme]
    bare = f"[{host}]" if ":" in host else host
    named = bare if port == _PORTS[parts.scheme] else f"{bare}:{port}"
    path = _ESCAPED.sub("%25", quote(parts.path or "/", safe=_SAFE))
    return Address(Origin(host, port, parts.scheme == "https"), named, path)


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode()
