"""What is refused before any route is looked for, and keys that make a request one and the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from coe.errors import RequestError
from coe.services.wire.refusals import refused

# a path that is another one once it is decoded
_DISGUISED = re.compile(rb"%(?:2f|5c|2e|00)", re.IGNORECASE)
# names of models and experts may hold a slash, and clients write it so
_NAMES = (b"/v1/models/", b"/admin/experts/")
_HOST = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")
_KEY = re.compile(rb"[!-~]{1,255}")
_LOOKED_AT = frozenset({b"host", b"upgrade", b"authorization", b"idempotency-key"})


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
        found, path = _named(scope["headers"]), scope.get("raw_path", b"")
        hosts = found.get(b"host", ())
        if len(hosts) > 1 or (not hosts and scope["http_version"] != "1.0"):
            return RequestError("there must be one host", None, "invalid_host")
        if hosts and not self._is_own(hosts[0]):
            return RequestError("this gateway has another name", None, "invalid_host")
        if _DISGUISED.search(path) and not path.startswith(_NAMES):
            return RequestError("there is nothing at such a path", None, "unknown_url")
        if b"websocket" in [value.lower() for value in found.get(b"upgrade", ())[:1]]:
            return RequestError("there is only HTTP here", None, "unsupported_upgrade")
        if len(found.get(b"authorization", ())) > 1:
            return RequestError("there are two keys", None, "ambiguous_credentials")
        if not all(_KEY.fullmatch(key) for key in found.get(b"idempotency-key", ())[:1]):
            return RequestError(
                "idempotency-key must be 1 to 255 printable signs",
                None,
                "invalid_idempotency_key",
            )
        return None

    def _is_own(self, sent: bytes) -> bool:
        host = sent.decode("latin-1").lower()
        name, given = host.rpartition(":")[0], self.hosts
        return bool(_HOST.fullmatch(host)) and (not given or host in given or name in given)


def _named(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """The fields that are looked at, by name, in their order."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _LOOKED_AT:
            found.setdefault(name, []).append(value)
    return found


@dataclass(slots=True)
class Keys:
    """The bodies that came with an ``idempotency-key``, as digests, the oldest forgotten first.

    A key promises that what comes with it is one request: a second body is a mistake. Answers are
    not kept: the same body is answered anew.
    """

    most: int = 10_000
    _seen: OrderedDict[bytes, bytes] = field(default_factory=OrderedDict)

    def check(self, key: str | None, caller: str, body: Mapping[str, Any]) -> None:
        """Remember a caller's key with its body; without a key there is nothing to remember.

        Raises
        ------
        RequestError
            The caller's key came with another body before: ``idempotency_conflict``.
        """
        if key is None:
            return
        name = hashlib.blake2b(f"{caller}\n{key}".encode()).digest()
        digest = hashlib.blake2b(json.dumps(body, sort_keys=True).encode()).digest()
        if self._seen.setdefault(name, digest) != digest:
            raise RequestError(
                "this idempotency-key came with another body before", None, "idempotency_conflict"
            )
        self._seen.move_to_end(name)
        if len(self._seen) > self.most:
            self._seen.popitem(last=False)
