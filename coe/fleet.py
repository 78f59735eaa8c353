"""What ``coe.yaml`` says of a fleet: copies of an expert, the cluster, and where gateways ask."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from coe.yamlfile import Name, Positive, Section, Url, wrong_field

# carrier-grade NAT, where private overlay networks have their addresses
_SHARED_SPACE = ip_network("100.64.0.0/10")

NODE_LABEL = "coe-node"
"""Label of a node of the cluster that says which node of ``coe.yaml`` it is."""

OWN_ADDRESS = "private"
"""As the ``host`` of a fleet: the address by which the head joined its cluster."""


class ReplicasSection(Section):
    """How many copies of an expert a fleet runs; a number alone is both bounds.

    Between the bounds, as many as let no more than ``target_queue`` requests wait for each copy.
    """

    min: Annotated[int, Field(ge=1, le=1000)] = 1
    max: Annotated[int, Field(ge=1, le=1000)] = 1
    target_queue: Positive = 1.0

    @model_validator(mode="before")
    @classmethod
    def _of_number(cls, value: Any) -> Any:
        return {"min": value, "max": value} if type(value) is int else value

    @model_validator(mode="after")
    def _ordered(self) -> ReplicasSection:
        if self.min > self.max:
            raise wrong_field(f"min {self.min} is more than max {self.max}", ("min",))
        return self


class FleetSection(Section):
    """The Ray cluster that experts run on, and where gateways learn of them.

    The supervisor listens on ``host`` and ``port``; ``address`` is where gateways find it, if that
    is another. ``engines`` says where engines listen.
    """

    ray_address: str = "auto"
    namespace: Name = "coe"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(gt=0, le=65535)] = 8090
    address: Url | None = None
    engines: Literal["loopback", "private"] = "loopback"
    token_env: str = "COE_FLEET_TOKEN"

    @field_validator("host")
    @classmethod
    def _not_public(cls, value: str) -> str:
        if value != OWN_ADDRESS:
            private_address(value)
        return value

    @field_validator("address")
    @classmethod
    def _not_at_a_public_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        host = urlsplit(value).hostname or ""
        try:
            ip_address(host)
        except ValueError:
            return value.rstrip("/")  # a name: what it stands for is known on the spot only
        private_address(host)
        return value.rstrip("/")

    @model_validator(mode="after")
    def _found(self) -> FleetSection:
        if self.host == OWN_ADDRESS and self.address is None:
            why = f"host {OWN_ADDRESS} is known to the head alone: say under address where it is"
            raise wrong_field(why, ("host",))
        return self

    @property
    def url(self) -> str:
        """Where the supervisor is, for gateways."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.address or f"http://{host}:{self.port}"


def private_address(value: str) -> str:
    """``value``, if it is an address that the internet does not reach.

    Raises
    ------
    ValueError
        It is a public address, all addresses, or no IP address.
    """
    try:
        address = ip_address(value)
    except ValueError:
        raise ValueError(f"{value!r} is not an IP address") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified or not (address.is_private or address in _SHARED_SPACE):
        raise ValueError(
            f"{value} is not a loopback or private address: the fleet is not for the internet"
        )
    return value
