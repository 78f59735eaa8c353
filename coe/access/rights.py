"""Which role may ask for what. What is not listed here is for nobody but admins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from coe.access.caller import Role

Verdict = Literal["yes", "forbidden", "unknown_url", "method_not_allowed"]

PUBLIC: Final = frozenset({"/healthz", "/readyz"})
"""Paths that are read without a key; ``/readyz`` then says no more than whether it is."""

_EVERYBODY: Final[frozenset[Role]] = frozenset({"user", "viewer", "admin"})
_USERS: Final[frozenset[Role]] = frozenset({"user", "admin"})
_VIEWERS: Final[frozenset[Role]] = frozenset({"viewer", "admin"})
_ADMINS: Final[frozenset[Role]] = frozenset({"admin"})


@dataclass(frozen=True, slots=True)
class Right:
    """Who may use a method of a path.

    Parameters
    ----------
    path : all of it, or with a slash at its end how it begins.
    metered : whether it counts as a request of the key.
    """

    method: str
    path: str
    roles: frozenset[Role]
    metered: bool = False


RIGHTS: Final = (
    Right("POST", "/v1/chat/completions", _USERS, metered=True),
    Right("POST", "/v1/completions", _USERS, metered=True),
    Right("POST", "/v1/embeddings", _USERS, metered=True),
    Right("POST", "/v1/route", _USERS, metered=True),
    Right("GET", "/v1/models", _EVERYBODY),
    Right("GET", "/v1/models/", _EVERYBODY),
    Right("GET", "/v1/decisions/", _EVERYBODY),
    Right("GET", "/openapi.json", _EVERYBODY),
    Right("GET", "/metrics", _VIEWERS),
    Right("GET", "/admin/experts", _VIEWERS),
    Right("GET", "/admin/status", _VIEWERS),
    Right("GET", "/admin/shadow", _VIEWERS),
    Right("GET", "/admin/decisions", _VIEWERS),
    Right("PUT", "/admin/experts/", _ADMINS),
    Right("POST", "/admin/reload", _ADMINS),
)

_WHOLE: Final = {(right.method, right.path): right for right in RIGHTS}
_BEGUN: Final = tuple(right for right in RIGHTS if right.path.endswith("/"))
_PATHS: Final = frozenset(right.path for right in RIGHTS)


def right_to(method: str, path: str) -> Right | None:
    """The entry for a method of a path; ``HEAD`` is read as ``GET``; ``None``: there is none."""
    method = "GET" if method == "HEAD" else method
    found = _WHOLE.get((method, path))
    if found is not None or path in _PATHS:
        return found
    for right in _BEGUN:
        if right.method == method and path.startswith(right.path):
            return right
    return None


def verdict(right: Right | None, role: Role, path: str) -> Verdict:
    """Whether a role may use what `right_to` found, or why not."""
    if role == "admin":
        return "yes"
    if right is not None:
        return "yes" if role in right.roles else "forbidden"
    is_there = path in _PATHS or path.startswith(tuple(right.path for right in _BEGUN))
    return "method_not_allowed" if is_there else "unknown_url"
