"""Who is really at the other end, where proxies stand between."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

_FOR = re.compile(r'for=(?:"([^"]*)"|([^;,\s"]*))', re.IGNORECASE)
_PORT = re.compile(r"(?:\[([^\]]*)\]|(\d+\.\d+\.\d+\.\d+))(?::\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Proxies:
    """The networks of proxies whose word on whom they speak for is taken."""

    networks: Sequence[Network] = ()

    def client(self, peer: str, chains: Sequence[str]) -> str:
        """The address that a request comes from.

        Every proxy appends whom it heard from. So the chain is read from its end, as long as each
        address is a trusted proxy's; the first that is none is the client, whatever stands before
        it, which the client may have made up. Where the chain ends or is no address, the last
        proxy is taken for the client.

        Parameters
        ----------
        peer : the other end of the connection. Of one that is not trusted, chains mean nothing.
        chains : values of ``x-forwarded-for``, or of ``forwarded`` (RFC 7239), in their order.
        """
        if not self._trusts(peer):
            return peer
        found = peer
        for address in _backwards(chains):
            if address is None:
                break
            found = address
            if not self._trusts(address):
                break
        return found

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self.networks)


def _backwards(chains: Sequence[str]) -> Iterator[str | None]:
    """The addresses of a chain, the last first; ``None`` where one is none."""
    for value in reversed(chains):
        for part in reversed(value.split(",")):
            named = _FOR.search(part)
            yield _address((named[1] or named[2]) if named else part.strip())


def _address(text: str) -> str | None:
    """An address, written with a port or without one."""
    match = _PORT.fullmatch(text)
    try:
        return str(ip_address((match[1] or match[2]) if match else text))
    except ValueError:
        return None
