"""How the command line reaches a gateway that runs."""

from __future__ import annotations

import ssl
from typing import Any

from coe.config import Config
from coe.environment import caller_key
from coe.errors.files import ConfigError


def connection(config: Config, token: str | None = None) -> dict[str, Any]:
    """Options of an HTTP client: what it shows, and whose certificates it believes.

    Beside the authorities of this machine that is the gateway's own certificate.

    Parameters
    ----------
    token : to be shown; ``None``: the user's key, if there is one.

    Raises
    ------
    ConfigError
        The certificate cannot be read, or the key cannot be sent.
    """
    options: dict[str, Any] = {"trust_env": False}
    if shown := token or caller_key():
        options["headers"] = {"authorization": f"Bearer {shown}"}
    if config.gateway.tls is None:
        return options
    context = ssl.create_default_context()
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(config.gateway.tls.certificate)
    except OSError as error:
        raise ConfigError(f"gateway.tls: certificate: {error}") from error
    return options | {"verify": context}
