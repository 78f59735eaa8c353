"""What ``coe.yaml`` says of who may ask, and of how connections are kept private."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from coe.yamlfile import Positive, Section

Network = IPv4Network | IPv6Network


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
