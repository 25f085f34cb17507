"""What single settings take: each function returns the value, or says in words what it would take.

Every one raises ValueError, which pydantic makes an error of the setting's name.
"""

import re
from string import hexdigits
from urllib.parse import urlsplit

from pydantic import SecretStr

from engine.policy.identifiers import IdentifierError, normalise_asset
from engine.policy.money import AmountError, parse_usd

_SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
ENDPOINTS_MAX = 8
"""So many endpoints of one chain are asked."""


def check_address(text: str) -> str:
    """An address, in lower case."""
    try:
        normalise_asset(f"eip155:1/erc20:{text}")
    except IdentifierError:
        raise ValueError("takes an address: 0x and 40 hex digits") from None
    return text.lower()


def check_asset(text: str) -> str:
    """A CAIP-19 id, in its one form."""
    try:
        return normalise_asset(text)
    except IdentifierError:
        raise ValueError("takes a CAIP-19 id, such as eip155:8453/erc20:0x…") from None


def check_assets(text: str) -> str:
    """CAIP-19 ids, each once, with spaces between."""
    try:
        assets = [check_asset(asset) for asset in text.split()]
    except ValueError:
        assets = []
    if not assets or len(set(assets)) < len(assets):
        raise ValueError(
            "takes a CAIP-19 id, such as eip155:8453/erc20:0x…, or several that differ, with "
            "spaces between"
        )
    return " ".join(assets)


def check_chain(text: str) -> str:
    """`embedded`, or the URLs of endpoints."""
    if text == "embedded":
        return text
    urls = text.split()
    if not urls or not all(re.fullmatch(r"https?://.+", url) for url in urls):
        raise ValueError(
            "takes `embedded` or a URL that begins with http:// or https://, or several with "
            "spaces between"
        )
    for url in urls:
        _check_parts(url)
    if len(set(urls)) < len(urls):
        raise ValueError("takes endpoints that differ: the same URL is there twice")
    if len(urls) > ENDPOINTS_MAX:
        raise ValueError(f"takes at most {ENDPOINTS_MAX} endpoints")
    return " ".join(urls)


def check_database(url: SecretStr) -> SecretStr:
    """The URL of a PostgreSQL database.

    SQLAlchemy and libpq both read it, and differ where a password has what is special in a URL: a
    part of the password would be told as the name of a host that there is not.
    """
    text = url.get_secret_value()
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("takes a URL that begins with postgresql://")
    # Whoever names no database waits for neither of them to be imported.
    import psycopg
    import sqlalchemy as sa
    from psycopg.conninfo import conninfo_to_dict

    try:
        address, again = sa.make_url(text), conninfo_to_dict(text)
    except (ValueError, sa.exc.ArgumentError, psycopg.Error):
        raise ValueError(_DATABASE_FORM) from None
    if "@" in (address.host or ""):
        raise ValueError("takes a host without @: write @ in a user or password as %40")
    names = {"user": address.username, "password": address.password, "host": address.host}
    alike = all(
        (value or None) == (again.get(name) or None)
        for name, value in names.items()
        if name not in address.query
    )
    if not alike or (address.port is not None and address.port not in _PORTS):
        raise ValueError(_DATABASE_FORM)
    return url


_DATABASE_FORM = (
    "takes a URL such as postgresql://user:password@host:5432/name: the port is a number, after a "
    "? stands what libpq knows, and @ / ? # % in a user or password are %40 %2F %3F %23 %25"
)
_PORTS = range(1, 65_536)


def check_store(reference: SecretStr) -> SecretStr:
    """Where payers store."""
    text = reference.get_secret_value()
    scheme, found, _ = text.partition("://")
    if not (scheme in _STORE_SCHEMES if found else re.fullmatch(r"[\w.-]+(:[\w.]+)?", text)):
        raise ValueError(
            "takes `memory`, `sql`, `package.module:name`, or a URL that begins with valkey://"
        )
    if found and scheme != "unix":
        _check_parts(text)
    return reference


_STORE_SCHEMES = ("valkey", "valkeys", "redis", "rediss", "unix")


def _check_parts(url: str) -> None:
    """Where a password has what is special in a URL, a part of it would be taken for the host, the
    port or the path, and told as such.
    """
    try:
        parts = urlsplit(url)
        alike = parts.port != 0 and "@" not in parts.path + parts.query + parts.fragment
    except ValueError:
        alike = False
    if not alike:
        raise ValueError(
            "takes a URL in which the port is a number, and @ / ? # % in a user or password, and "
            "@ in a path, are %40 %2F %3F %23 %25"
        )


def check_symbol(text: str) -> str:
    """The symbol of a token."""
    if not re.fullmatch(r"[A-Z0-9.]{1,12}", text):
        raise ValueError("takes 1 to 12 capital letters, digits and dots")
    return text


def check_private_key(secret: SecretStr) -> SecretStr:
    """A private key of secp256k1 (SEC 2)."""
    digits = secret.get_secret_value().removeprefix("0x")
    if len(digits) != 64 or not set(digits) <= set(hexdigits):
        raise ValueError("takes a private key of 64 hex digits")
    if not 0 < int(digits, 16) < _SECP256K1_ORDER:
        raise ValueError("takes a private key in the range of the curve (SEC 2, secp256k1)")
    return secret


def check_price(text: str) -> str:
    """Dollars, or `free`."""
    if text != "free":
        try:
            parse_usd(text.removeprefix("$"))
        except AmountError as error:
            raise ValueError(f"takes dollars such as 0.01, or `free`: {error}") from None
    return text


def check_url(text: str) -> str:
    """A URL of HTTP."""
    if not re.fullmatch(r"https?://[!-~]+", text):
        raise ValueError("takes a URL that begins with http:// or https://")
    _check_parts(text)
    return text


def check_endpoint(secret: SecretStr) -> SecretStr:
    """The URL of a JSON-RPC endpoint, whose path may be a key."""
    url = secret.get_secret_value()
    if not re.fullmatch(r"https?://.+", url):
        raise ValueError("takes a URL that begins with http:// or https://")
    _check_parts(url)
    return secret


def check_operator_key(secret: SecretStr) -> SecretStr:
    """A key that an operator chose."""
    text = secret.get_secret_value()
    if not all("!" <= character <= "~" for character in text):
        raise ValueError("takes printable ASCII characters without spaces")
    if text.startswith("zai_session_"):
        raise ValueError("takes a key that does not begin like a session token (zai_session_)")
    return secret


def check_host(text: str) -> str:
    """A host without scheme and port."""
    if not re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+", text):
        raise ValueError("takes a host without scheme and port, such as pay.example.com")
    return text.lower()
