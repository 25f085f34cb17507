"""Merchants as people name them: a host has the one name that payments to it bear.

A payment to a URL names its merchant by the URL's host (`engine.payments.terms.read_resource`). A
list or a sentence with another spelling of that host would bind no such payment, and nobody would
learn why. It is refused where it is asked for and nowhere else: what was signed stays readable.
"""

import re
from collections.abc import Container, Sequence

import idna

from engine.errors import InvalidInput
from engine.policy.decision import Policy
from engine.policy.identifiers import IdentifierError, normalise_host

_URL = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_PORT = re.compile(r":([0-9]*)$")
_OWN_PORTS = (80, 443)
_ANY_BENEATH = "*."


def name_as_paid(name: str) -> str:
    """The name that payments bear to the host that `name` can only mean; else `name` as it is.

    It means a host if it begins with `http://` or `https://`, or is up to its first `/` a host with
    a dot in it or in brackets, with a port or without, `*.` before it or not. The scheme is no part
    of a merchant's name, so neither are 80 and 443.

    Raises:
        ValueError: it means a URL or hosts that no one payment is made to.
    """
    url = _URL.match(name)
    authority = name.partition("/")[0] if url is None else url[1]
    try:
        pattern, host, port = _parts(authority)
    except IdentifierError as error:
        if url is not None:
            raise ValueError(f"is a URL that nothing can be paid to: {error}") from error
        return name
    if pattern:
        raise ValueError("names all hosts beneath one: a merchant is one host")
    if url is None and "." not in host and host[0] != "[":
        return name
    return host if port in _OWN_PORTS else f"{host}:{port}"


def check_merchant(name: str) -> None:
    """Refuse a host in another spelling than payments have it.

    Raises:
        ValueError: it is one; the right one is told.
    """
    if (paid := name_as_paid(name)) != name:
        raise ValueError(f"write {paid!r}, as payments name that host")


def check_merchants(names: Sequence[str], field: str, inherited: Container[str] = ()) -> None:
    """The same of a list, but for what is `inherited`.

    Raises:
        InvalidInput: naming the first by its place.
    """
    for index, name in enumerate(names):
        try:
            if name not in inherited:
                check_merchant(name)
        except ValueError as error:
            raise InvalidInput(f"{field}[{index}]", str(error)) from error


def merchants_of(policy: Policy) -> frozenset[str]:
    """All that a policy names: who narrows it has to name them as it does."""
    rules = policy.in_force
    return frozenset(
        {
            *(policy.merchants or ()),
            *(name for what, name in rules.never if what == "merchant"),
            *(cap.name for cap in rules.caps if cap.of == "merchant" and cap.name is not None),
        }
    )


def _parts(authority: str) -> tuple[bool, str, int]:
    """Whether it means what is beneath a host, the host, and the port: its own if it has none."""
    found = _PORT.search(authority)
    port = int(found[1] or _OWN_PORTS[0]) if found is not None else _OWN_PORTS[0]
    if not 0 < port < 1 << 16:
        raise IdentifierError("its port is none")
    host = authority if found is None else authority[: found.start()]
    pattern = host.startswith(_ANY_BENEATH)
    return pattern, normalise_host(_in_ascii(host.removeprefix(_ANY_BENEATH))), port


def _in_ascii(host: str) -> str:
    """Punycode, as browsers make it (UTS #46): of what a label may hold they leave more than the
    registries do, and it is what the URL says."""
    if host.isascii():
        return host
    try:
        labels = idna.uts46_remap(host, std3_rules=False).split(".")
    except idna.IDNAError as error:
        raise IdentifierError(str(error)) from error
    return ".".join(
        label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels
    )
