"""What ``coe.yaml`` says of who may ask, and of how connections are kept private."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, PlainValidator

from coe.yamlfile import Positive, Section

# one complaint of a wrong one, instead of one for each version of IP
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(ip_network)]

HOST: Final = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")
"""A name or an address in lower case, with a port or without one, as in ``Host``."""


def _host(name: str) -> str:
    if not HOST.fullmatch(name.lower()):
        raise ValueError("is no name of a host, such as router.example or localhost:8080")
    return name


HostName = Annotated[str, AfterValidator(_host)]


class AccessSection(Section):
    """Everybody shows a key; see `coe.access.keys`."""

    keys: Path | None = None
    pepper_env: Annotated[str, Field(min_length=1)] = "COE_KEY_PEPPER"
    failures_per_minute: Positive = 60.0

    def beside(self, base: Path) -> Self:
        """The section with its path resolved against ``base``."""
        return self.model_copy(update={"keys": self.keys and base / self.keys})

    def file(self, state_home: Path) -> Path:
        """The file of keys."""
        return self.keys or state_home / "keys.json"


class TlsSection(Section):
    """The certificate that a gateway shows, and whose certificates it asks of callers."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def beside(self, base: Path) -> Self:
        """The section with its paths resolved against ``base``."""
        found = {"certificate": base / self.certificate, "key": base / self.key}
        ca = self.client_ca and base / self.client_ca
        return self.model_copy(update={**found, "client_ca": ca})
