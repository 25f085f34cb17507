"""Where the Studio is open: the one origin whose pages may ask for passkeys and send forms."""

import re
from dataclasses import dataclass

from engine.errors import CannotStart, Forbidden

PREFIX = "/studio"

_ORIGIN = re.compile(
    r"https://(?=[^:]*[a-z])[a-z0-9.-]+(:(?!443$)[0-9]{1,5})?|http://localhost(:(?!80$)[0-9]{1,5})?",
)


def check_origin(configured: str | None) -> None:
    """Refuse what is no origin that a browser would take passkeys for.

    Raises:
        CannotStart: it is none.
    """
    if configured is not None and not _ORIGIN.fullmatch(configured):
        raise CannotStart(
            "TALLYSTICK_STUDIO_ORIGIN: takes an origin as browsers write it, such as "
            "https://studio.example.com: a name, no default port and no path"
        )


@dataclass(frozen=True, slots=True)
class Place:
    """An origin (RFC 6454), such as `https://studio.example.com`."""

    origin: str

    @property
    def rp_id(self) -> str:
        """The host, for WebAuthn."""
        return self.origin.partition("://")[2].partition(":")[0]

    @property
    def secure(self) -> bool:
        """Whether it is over TLS."""
        return self.origin.startswith("https://")

    @property
    def cookie(self) -> str:
        """The name of the cookie; the prefix has browsers see to its attributes (RFC 6265bis)."""
        return "__Host-tallystick" if self.secure else "tallystick-studio"

    @property
    def cookie_path(self) -> str:
        """`__Host-` wants the root."""
        return "/" if self.secure else "/studio"


def origin_of(configured: str | None, port: int | None) -> str:
    """The origin of a Studio that is reached by connections to `port`.

    Without a configured one that is `http://localhost` with that port and no other name: whoever
    has another name or port cannot have this server take passkeys that were asked for there.
    """
    if configured is not None:
        return configured
    return "http://localhost" if port in (None, 80) else f"http://localhost:{port}"


def place_of(configured: str | None, host: str, port: int | None) -> Place:
    """The place that a request to `host` came to, by a connection to `port`.

    Raises:
        Forbidden: it is not the place of the Studio.
    """
    origin = origin_of(configured, port)
    if host == origin.partition("://")[2]:
        return Place(origin)
    told = f"the Studio is at {origin}{PREFIX}"
    if configured is None:
        told = f"open the Studio at {origin}{PREFIX}, or set TALLYSTICK_STUDIO_ORIGIN"
    raise Forbidden(told, code="wrong_origin")
