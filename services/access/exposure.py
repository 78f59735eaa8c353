"""Whether a gateway may listen where it is told to, with the keys that it asks for."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from coe.config import Config
from coe.errors.files import ConfigError


def check_exposure(config: Config, address: str, without_keys: bool = False) -> str:
    """What the operator should know of a gateway that listens on ``address``; "": nothing.

    Parameters
    ----------
    address : a number, as the socket has it. All addresses of a machine are not loopback.
    without_keys : everybody who reaches it may come in.

    Raises
    ------
    ConfigError
        Other machines may reach it, it asks for no keys, and nobody said that this is meant. Or
        somebody did, and it does ask for keys.
    """
    if without_keys and config.access is not None:
        raise ConfigError("--without-keys, and coe.yaml has `access`: leave one of them out")
    if _is_loopback(address):
        return ""
    if config.access is None and not without_keys:
        raise ConfigError(
            f"{address} can be reached from other machines, and this gateway asks for no keys: "
            "add `access: {}` to coe.yaml and make keys with `coe keys create`; or listen on "
            "127.0.0.1; or, where something else keeps strangers away, say --without-keys"
        )
    if config.access is None:
        return f"whoever reaches {address} may ask: no keys are asked for"
    if config.gateway.tls is None:
        return (
            f"keys come to {address} as they are: set gateway.tls, or have a proxy in front of it "
            "end TLS"
        )
    return ""


def _is_loopback(address: str) -> bool:
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return found.is_loopback
