"""Which addresses the gateway may connect to. Pure: nothing is looked up here."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, Literal
from urllib.parse import urlsplit

Kind = Literal["public", "private", "loopback", "never"]
"""What an address is; ``never``: nothing that answers requests is there."""

_PRIVATE: Final = tuple(
    map(
        ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
    )
)
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_NEVER: Final = tuple(
    map(
        ip_network,
        (
            # where clouds keep the secrets of a machine, though the ranges around are in use
            *("100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::254/128"),
            *("0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            *("::/128", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:db8::/32"),
            *("fe80::/10", "fec0::/10", "ff00::/8"),
        ),
    )
)
# IPv6 networks that hold IPv4 addresses, and how many bits follow those
_HOLDING: Final = (
    (ip_network("::ffff:0:0/96"), 0),
    (ip_network("64:ff9b::/96"), 0),
    (ip_network("2002::/16"), 80),
    (ip_network("::/96"), 0),
)
_SELF: Final = IPv6Address("::1")
_LOCAL_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
_NEVER_NAMES: Final = re.compile(
    r"(.*\.)?(metadata\.google\.internal|metadata\.azure\.com|metadata|instance-data)(\..*)?"
)
_PRIVATE_NAMES: Final = re.compile(r".*\.(internal|local|lan|home\.arpa|localdomain)")
_WELL_KNOWN_PORTS: Final = frozenset({80, 443})
_FIRST_FREE_PORT: Final = 1024


def kind_of(address: str) -> Kind:
    """What an address is, by itself or by the IPv4 address that it holds.

    Raises
    ------
    ValueError
        It is no address as `ipaddress` writes them.
    """
    return _kind(ip_address(address.partition("%")[0]))


def _kind(address: IPv4Address | IPv6Address) -> Kind:
    if any(address in network for network in _NEVER):
        return "never"
    if any(address in network for network in _LOOPBACK):
        return "loopback"
    if any(address in network for network in _PRIVATE):
        return "private"
    for network, n_bits in _HOLDING:
        if address in network:
            return _kind(IPv4Address((int(address) >> n_bits) & 0xFFFF_FFFF))
    return "public"


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be connected to besides public addresses; some are nobody's to connect to."""

    loopback: bool = False
    private: bool = False

    def refusal(self, address: str) -> str | None:
        """Why not to connect to an address; ``None``: one may."""
        try:
            kind = kind_of(address)
        except ValueError:
            return "its address is none"
        if kind == "never":
            return "its address is none that experts have"
        if kind == "loopback" and not self.loopback:
            return "its name leads to this machine: allow_loopback is not set"
        if kind == "private" and not self.private:
            return "its name leads into a private network: allow_private is not set"
        return None


def reach_of(url: str, loopback: bool | None = None, private: bool | None = None) -> Reach:
    """What a server at this address may be reached by.

    Parameters
    ----------
    loopback, private : whether its name may lead to this machine, and into a private network;
        ``None``: where the address itself says so, as ``127.0.0.1``, ``localhost`` and
        ``10.0.0.5`` do.

    Raises
    ------
    ValueError
        Nobody may connect to it; the message says why, and what would do.
    """
    host, port = _parts(url)
    kind = _kind_of_host(host)
    if ":" in host and kind != "public" and _holds_another(host):
        raise ValueError(f"{host} is an address in disguise: write it plainly")
    own = {"loopback": loopback, "private": private}
    if kind in own and own[kind] is None:
        own[kind] = True
    if kind in own and not own[kind]:
        raise ValueError(f"{host} is {kind}: set allow_{kind}, or use another address")
    if kind == "never":
        raise ValueError(f"{host} is no address of an expert")
    if kind != "loopback" and port < _FIRST_FREE_PORT and port not in _WELL_KNOWN_PORTS:
        raise ValueError(f"port {port} is another service's: use 80, 443, or one from 1024 on")
    return Reach(bool(own["loopback"]), bool(own["private"]))


def _parts(url: str) -> tuple[str, int]:
    """Host in lower case, and port."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and a host")
    if "@" in parts.netloc:
        raise ValueError("must hold no user and no password: name the key's variable")
    if parts.query or parts.fragment:
        raise ValueError("must hold neither ? nor #")
    port = parts.port  # raises for one beyond 65535
    if port == 0:
        raise ValueError("port 0 is none")
    return parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _holds_another(host: str) -> bool:
    address = ip_address(host.partition("%")[0])
    return address != _SELF and any(address in network for network, _ in _HOLDING)


def _kind_of_host(host: str) -> Kind:
    """What a host is by its name; a name is ``public`` until it is looked up."""
    try:
        return kind_of(host)
    except ValueError:
        pass
    if _NEVER_NAMES.fullmatch(host):
        return "never"
    if host in _LOCAL_NAMES:
        return "loopback"
    if host.endswith(".") or not re.fullmatch(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", host):
        raise ValueError(f"{host!r} is no plain host name")
    try:
        socket.inet_aton(host)  # reads what C reads as an address; looks nothing up
    except OSError:
        return "private" if _PRIVATE_NAMES.fullmatch(host) else "public"
    raise ValueError(f"{host!r} is an address in disguise: write it plainly")
