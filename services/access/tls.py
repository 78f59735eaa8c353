"""TLS at the front of a gateway."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from coe.access.section import TlsSection
from coe.errors.files import ConfigError

Factory = Callable[[Any, Any], ssl.SSLContext]
"""What uvicorn asks for a context, with two arguments that are of no use here."""


def private(section: TlsSection) -> Factory:
    """What gives a server the context of this certificate, TLS 1.2 at least.

    With ``client_ca`` only callers that show a certificate of that authority are let in.

    Raises
    ------
    ConfigError
        A file is absent, is none of the kind, or certificate and key are no pair.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for file in (section.certificate, section.key):
        _load(str(file), file.read_bytes)
    _load("certificate and key", lambda: context.load_cert_chain(section.certificate, section.key))
    if section.client_ca is not None:
        authority = section.client_ca
        _load("client_ca", lambda: context.load_verify_locations(authority))
        context.verify_mode = ssl.CERT_REQUIRED
    return lambda config, usual: context


def _load(what: str, read: Callable[[], object]) -> None:
    try:
        read()
    except OSError as error:  # an SSLError is one, too
        raise ConfigError(f"gateway.tls: {what}: {error.strerror or error}") from error
