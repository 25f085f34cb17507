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


def place_of(configured: str | None, host: str, port: int | None) -> Place:
    """The place that a request to `host` came to, by a connection to `port`.

    Without a configured origin that is `http://localhost` with that port and no other name: whoever
    has another name or port cannot have this server take passkeys that were asked for there.

    Raises:
        Forbidden: it came to another one.
    """
    if configured is not None:
        if host != configured.partition("://")[2]:
            raise Forbidden(f"the Studio is at {configured}/studio", code="wrong_origin")
        return Place(configured)
    local = "localhost" if port in (None, 80) else f"localhost:{port}"
    if host != local:
        raise Forbidden(
            f"open the Studio at http://{local}/studio, or set TALLYSTICK_STUDIO_ORIGIN",
            code="wrong_origin",
        )
    return Place(f"http://{local}")
