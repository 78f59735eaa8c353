"""The porter of a gateway: who comes in, and how often."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from coe.access.caller import OPERATOR, Caller
from coe.access.failures import Failures
from coe.access.keys import Ring
from coe.access.rates import RateMeter
from coe.config import Config
from coe.decision import Receipt
from coe.environment import admin_token, key_pepper, state_home
from coe.errors.callers import CredentialsError, RateLimitError
from coe.errors.files import ConfigError
from coe.services.access.keyfile import KeyFile
from coe.services.access.keyring import Keyring
from coe.services.runnable import Say

_SCHEME = "Bearer "


@dataclass(slots=True)
class Porter:
    """Knows whose key is shown.

    Parameters
    ----------
    token : the operator's; ``None``: there is none.
    wall : seconds since 1970, by which keys expire.
    """

    keyring: Keyring
    rates: RateMeter
    failures: Failures
    token: str | None = field(default=None, repr=False)
    wall: Callable[[], float] = time.time

    async def caller(self, shown: str | None, address: str) -> Caller:
        """Who shows this ``authorization``.

        Parameters
        ----------
        address : from where; who shows many wrong keys is put off for a while. A right one
            is let in all the same.

        Raises
        ------
        CredentialsError
            Nothing is shown, or no key that holds.
        RateLimitError
            Nor did many before it, from there.
        """
        if shown is None:
            raise CredentialsError(
                "show a key: `authorization: Bearer coe-...`", None, "missing_api_key"
            )
        ring = await self.keyring.current()
        found = self._known(ring, shown)
        if found is not None:
            return found
        later_s = self.failures.note(address)
        if later_s is not None:
            raise RateLimitError(
                "too many wrong keys come from this address",
                None,
                "auth_rate_limited",
                later_s,
            )
        raise CredentialsError("this key is wrong, has expired or was revoked")

    def charge(self, key_id: str, receipt: Receipt) -> None:
        """Take from the rates of a key what an answer took."""
        tokens = receipt.prompt_tokens + receipt.output_tokens
        self.rates.charge(key_id, tokens, receipt.energy_j)

    def _known(self, ring: Ring, shown: str) -> Caller | None:
        if not shown.startswith(_SCHEME):
            return None
        key = shown[len(_SCHEME) :]
        if self.token is not None and hmac.compare_digest(key.encode(), self.token.encode()):
            return OPERATOR
        return ring.caller(key, self.wall())


def porter_of(config: Config, say: Say = lambda line: None) -> Porter | None:
    """The porter of a gateway, its keys read; ``None`` where everybody may come in.

    Raises
    ------
    ConfigError
        There is no pepper, or as `KeyFile.records`.
    """
    if config.access is None:
        return None
    keyring = Keyring(key_file(config), say)
    keyring.open()
    if not keyring.ring.keys:
        say("there are no keys yet: make one with `coe keys create`")
    return Porter(
        keyring,
        RateMeter(time.monotonic),
        Failures(config.access.failures_per_minute, time.monotonic),
        admin_token(config.gateway.admin_token_env),
    )


def key_file(config: Config) -> KeyFile:
    """The configured file of keys, whether it is there or not.

    Raises
    ------
    ConfigError
        ``access`` is not configured, or there is no pepper.
    """
    if config.access is None:
        raise ConfigError("keys are not asked for: add `access: {}` to coe.yaml")
    path = config.access.file(state_home())
    return KeyFile(path, key_pepper(config.access.pepper_env, path.with_suffix(".pepper")))
