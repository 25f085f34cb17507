"""Which URLs can be an endpoint, and which addresses are connected to. Pure.

A receiver is on the public internet unless a setting says otherwise: whoever may add an endpoint
could otherwise have this process speak to what only this machine reaches (CWE-918, SSRF). The names
are resolved, and the addresses looked at, when a delivery connects: `engine.webhooks.egress`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)

from engine.errors import InvalidInput

URL_LENGTH_MAX = 2_000
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<target>(?:[/?][!$-;=?-Z_a-z~]*)?)"  # RFC 3986 without #, brackets, quotes and braces
)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_PORTS = {"https": 443, "http": 80}

_NOT_PUBLIC_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        ),
    )
)
"""IANA's special-purpose addresses (RFC 6890 and its registry), multicast and reserved."""
_PUBLIC_V6 = IPv6Network("2000::/3")
"""All that is unicast on the internet. Outside are loopback, local, mapped and NAT64 addresses."""
_NOT_PUBLIC_V6 = tuple(
    map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"))
)
"""In it: protocols such as Teredo, documentation, 6to4, and the sink of reverse lookups."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads. `host` is a name in lower case, or an address without brackets."""

    scheme: str
    host: str
    port: int
    address: Address | None


def parse_url(url: str, allowed: Sequence[Network] = ()) -> Target:
    """Where an endpoint's URL leads. Only spellings that all software reads alike are taken.

    Raises:
        InvalidInput: it is no such URL, or names an address that is neither public nor `allowed`.
    """
    if len(url) > URL_LENGTH_MAX:
        raise InvalidInput("url", f"is longer than {URL_LENGTH_MAX} characters")
    match = _URL.fullmatch(url)
    if match is None:
        raise InvalidInput(
            "url",
            "must be https://host, with a port, a path and a query if need be, in plain ASCII, "
            "without user, password and fragment",
        )
    scheme, host = match["scheme"], match["host"].lower()
    port = int(match["port"] or _PORTS[scheme])
    if port > 65_535:
        raise InvalidInput("url", "has a port above 65535")
    address = _literal(host)
    if address is not None and not permitted(address, allowed):
        raise InvalidInput("url", "names an address that is not public")
    if address is not None:
        return Target(scheme, str(address), port, address)
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise InvalidInput("url", "has a host that is no name and no address")
    return Target(scheme, host, port, None)


def within(address: Address, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of some networks."""
    return any(address in each for each in networks if each.version == address.version)


def permitted(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Whether an address is public, or in one of the networks that are `allowed` all the same."""
    if within(address, allowed):
        return True
    if isinstance(address, IPv4Address):
        return not within(address, _NOT_PUBLIC_V4)
    return address in _PUBLIC_V6 and not within(address, _NOT_PUBLIC_V6)


def parse_address(text: str) -> Address | None:
    """The address that a resolver gave; None if it is none that is known here."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def _literal(host: str) -> Address | None:
    """The address that a host is; None for a name.

    A host that ends in a number is an address to some software and a name to other (127.1, 0x7f.1,
    2130706433), so it has to be four plain decimal numbers.
    """
    if host.startswith("["):
        try:
            return IPv6Address(host[1:-1])
        except AddressValueError:
            raise InvalidInput("url", "has a host that is no IPv6 address") from None
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rstrip(".").rpartition(".")[2]):
        try:
            return IPv4Address(host)
        except AddressValueError:
            raise InvalidInput("url", "has a host that is no plain IPv4 address") from None
    return None
