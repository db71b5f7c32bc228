"""Where a request of ours may go: judged when the connection is dialled, on the addresses the name has just then.

Judging a URL by its text is not enough: a name can have any address, and another one a moment later. So every address
a name resolves to is judged, and the connection goes to one of exactly those. Addresses of the cloud's metadata
services are refused to everybody; loopback and private networks to whoever the operator has not allowed there; plain
HTTP is only spoken where the operator allowed it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

import httpx2
from msgspec import Struct

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

# Where clouds tell a machine its own credentials. Link-local as a whole has nothing else to offer.
_METADATA: tuple[Network, ...] = tuple(
    ipaddress.ip_network(each)
    for each in (
        *("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32"),
        *("100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32"),
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Unreachable(httpx2.ConnectError):
    """We will not go there."""


class Reach(Struct, frozen=True):
    """What may be reached besides the public internet: these networks, these `host:port`s, and loopback."""

    networks: tuple[Network, ...] = ()
    endpoints: frozenset[tuple[str, int]] = frozenset()
    loopback: bool = False

    def refusal(self, host: str, port: int, address: Address) -> str | None:
        """Why a connection to `host`, which resolves to `address`, is refused; None for one that is not."""
        plain = embedded(address)
        if any(_is_in(plain, network) for network in _METADATA):
            return "is an address that is never reached"
        if self.allows(host, port, address):
            return None
        if not plain.is_global or plain.is_multicast:
            return "is not on the public internet"
        return None

    def allows(self, host: str, port: int, address: Address) -> bool:
        """Whether the operator has allowed it by name or by network."""
        plain = embedded(address)
        return (
            (host.lower(), port) in self.endpoints
            or (self.loopback and plain.is_loopback)
            or any(_is_in(plain, network) for network in self.networks)
        )


def embedded(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that stands for it, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if inner is None and int(address) >> 32 == 0 and int(address) > 1:
        inner = ipaddress.IPv4Address(int(address))
    return inner or address


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks as operators write them. Raises `ValueError`."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


async def vetted(reach: Reach, resolve: Resolve, host: str, port: int, *, plain: bool) -> list[Address]:
    """All addresses `host` has now, when every one of them may be dialled; `plain`: without TLS.

    Raises `Unreachable`, and `OSError` or `ValueError` for a name that has none.
    """
    found = [ipaddress.ip_address(each.partition("%")[0]) for each in await resolve(host, port)]
    for address in found:
        # One bad address is enough: a name that has both is up to no good.
        if (reason := reach.refusal(host, port, address)) is not None:
            raise Unreachable(f"{host} {reason}")
        if plain and not reach.allows(host, port, address):
            raise Unreachable(f"{host} is on the public internet, where only https is spoken")
    return found


async def system_resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a name, as the system knows them. Raises `OSError`, `ValueError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _is_in(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network
