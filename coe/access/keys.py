"""API keys: how they look, what is kept of them, and whose one is.

A key is ``coe-<id>-<secret>``. Kept are its id and an HMAC-SHA-256 of the whole of it under a
secret of the server, the *pepper*: who reads the file of keys cannot make one, and no two servers
keep the same. A key is found by its id; digests are compared in constant time.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from coe.access.caller import Caller

N_ID_BYTES: Final = 6
N_SECRET_BYTES: Final = 24
"""192 bits."""

_SHOWN: Final = re.compile(r"coe-([0-9a-f]{12})-[A-Za-z0-9_-]{32}")
_NOBODYS: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Key:
    """What a gateway knows of one key.

    Parameters
    ----------
    digest : of the key, by `digest_of`.
    expires_s : seconds since 1970 at which it no longer holds; ``None``: it does for good.
    revoked : whether it was taken back.
    """

    caller: Caller
    digest: bytes = field(repr=False)
    expires_s: float | None = None
    revoked: bool = False


def minted(entropy: Callable[[int], bytes]) -> tuple[str, str]:
    """The id of a new key, and the key.

    Parameters
    ----------
    entropy : so many unpredictable bytes, such as `secrets.token_bytes`.
    """
    key_id = entropy(N_ID_BYTES).hex()
    secret = base64.urlsafe_b64encode(entropy(N_SECRET_BYTES)).decode()
    return key_id, f"coe-{key_id}-{secret}"


def digest_of(pepper: bytes, shown: str) -> bytes:
    """What is kept of a key: 32 bytes."""
    return hmac.digest(pepper, shown.encode(), "sha256")


def same(kept: bytes, shown: bytes) -> bool:
    """Whether two digests are one; how long it takes does not tell where they differ."""
    return hmac.compare_digest(kept, shown)


@dataclass(frozen=True, slots=True)
class Ring:
    """All keys of a gateway, by id."""

    pepper: bytes = field(repr=False)
    keys: Mapping[str, Key] = field(default_factory=dict)

    def caller(self, shown: str, now_s: float) -> Caller | None:
        """Whose key is shown; ``None``: no one's, or it holds no longer. Constant time.

        An id that nobody has costs the same as a wrong secret.

        Parameters
        ----------
        now_s : seconds since 1970. A key that expires now has expired.
        """
        match = _SHOWN.fullmatch(shown)
        if match is None:
            return None
        key = self.keys.get(match[1])
        right = same(_NOBODYS if key is None else key.digest, digest_of(self.pepper, shown))
        if not right or key is None or key.revoked:
            return None
        if key.expires_s is not None and now_s >= key.expires_s:
            return None
        return key.caller
