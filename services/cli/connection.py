"""How the command line reaches a gateway that runs, and what it says of one that it does not."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from coe.config import Config
from coe.environment import caller_key
from coe.errors import CoeError
from coe.errors.callers import RequestError
from coe.errors.files import ConfigError
from coe.errors.gateway import GatewayError

# of these the call, the key or the configuration is to be mended; others pass, or do not
_CORRECTABLE = ("invalid_request_error", "permission_error")


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


@contextmanager
def reached(base: str) -> Iterator[None]:
    """Ask a gateway at ``base``, whose answers are read within.

    Raises
    ------
    GatewayError
        Nobody answers there, or something else than a gateway does.
    """
    try:
        yield
    except httpx.ConnectError as error:
        raise GatewayError(
            f"no gateway answers at {base}: start one with `coe serve`, or correct the address"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise GatewayError(f"{base}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise GatewayError(f"{base} is not a coe gateway") from error


def refusal(document: Mapping[str, Any]) -> CoeError:
    """What a gateway says where it refuses, as an error of this program."""
    error = document["error"]
    message, code = error["message"], error["code"]
    if code == "missing_api_key":
        message = "this gateway asks for a key: export COE_API_KEY with one"
    if error["type"] in _CORRECTABLE:
        return RequestError(message, error["param"], code)
    return GatewayError(message)
