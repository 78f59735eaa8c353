"""What is refused before any route is looked for, and keys that make a request one and the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from coe.access.section import HOST
from coe.errors.callers import RequestError
from coe.services.wire.head import fields_of
from coe.services.wire.refusals import refused

# a path that is another one once it is decoded
_DISGUISED = re.compile(rb"%(?:2f|5c|2e|00)", re.IGNORECASE)
# names of models and experts may hold a slash, and clients write it so
_NAMES = (b"/v1/models/", b"/admin/experts/")
_KEY = re.compile(rb"[!-~]{1,255}")
_ONE_AT_MOST = frozenset({b"host", b"authorization"})


@dataclass(frozen=True, slots=True)
class Front:
    """An application behind the checks that all of its routes share.

    Parameters
    ----------
    hosts : names, with a port or without one, by which it may be addressed; none: any.
    """

    app: ASGIApp
    hosts: Sequence[str] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] == "http" and (error := self._wrong(scope)) is not None:
            await refused(error)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _wrong(self, scope: Scope) -> RequestError | None:
        fields, path = fields_of(scope), scope.get("raw_path", b"")
        twice = _several(scope["headers"]) if len(fields) < len(scope["headers"]) else ()
        host = fields.get(b"host")
        if b"host" in twice or (host is None and scope["http_version"] != "1.0"):
            return RequestError("there must be one host", None, "invalid_host")
        if host is not None and not self._is_own(host):
            said = "`gateway.hosts` in coe.yaml names others" if self.hosts else "that is no name"
            return RequestError(f"this gateway has another name: {said}", None, "invalid_host")
        if b"%" in path and _DISGUISED.search(path) and not path.startswith(_NAMES):
            return RequestError("there is nothing at such a path", None, "unknown_url")
        if fields.get(b"upgrade", b"").lower() == b"websocket":
            return RequestError("there is only HTTP here", None, "unsupported_upgrade")
        if b"authorization" in twice:
            return RequestError("there are two keys", None, "ambiguous_credentials")
        key = fields.get(b"idempotency-key")
        if key is not None and not _KEY.fullmatch(key):
            return RequestError(
                "idempotency-key must be 1 to 255 printable signs",
                None,
                "invalid_idempotency_key",
            )
        return None

    def _is_own(self, sent: bytes) -> bool:
        host, given = _host(sent), self.hosts
        return bool(host) and (not given or host in given or host.rpartition(":")[0] in given)


@lru_cache
def _host(sent: bytes) -> str:
    """The host as names are compared; "" where it is none."""
    host = sent.decode("latin-1").lower()
    return host if HOST.fullmatch(host) else ""


def _several(headers: Sequence[tuple[bytes, bytes]]) -> set[bytes]:
    """The fields that should be there once, and are several times."""
    names = [name for name, _ in headers if name in _ONE_AT_MOST]
    return {name for name in names if names.count(name) > 1}


@dataclass(slots=True)
class Keys:
    """The bodies that came with an ``idempotency-key``, as digests, the oldest forgotten first.

    A key promises that what comes with it is one request: a second body is a mistake. Answers are
    not kept: the same body is answered anew.
    """

    most: int = 10_000
    _seen: OrderedDict[bytes, bytes] = field(default_factory=OrderedDict)

    def check(self, key: str, caller: str, body: Mapping[str, Any]) -> None:
        """Remember a caller's key with its body.

        Raises
        ------
        RequestError
            The caller's key came with another body before: ``idempotency_conflict``.
        """
        name = hashlib.blake2b(f"{caller}\n{key}".encode()).digest()
        digest = hashlib.blake2b(json.dumps(body, sort_keys=True).encode()).digest()
        if self._seen.setdefault(name, digest) != digest:
            raise RequestError(
                "this idempotency-key came with another body before", None, "idempotency_conflict"
            )
        self._seen.move_to_end(name)
        if len(self._seen) > self.most:
            self._seen.popitem(last=False)
