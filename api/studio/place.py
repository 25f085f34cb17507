"""Where the Studio is open: the one origin whose pages may ask for passkeys and send forms."""

import re
from dataclasses import dataclass

from engine.errors import CannotStart, Forbidden

_LOCAL = re.compile(r"localhost(:[0-9]{1,5})?")


_ORIGIN = re.compile(
    r"https://[a-z0-9.-]+(:[0-9]{1,5})?|http://localhost(:[0-9]{1,5})?",
)


def check_origin(configured: str | None) -> None:
    """Refuse what is no origin that a browser would take passkeys for.

    Raises:
        CannotStart: it is none.
    """
    if configured is not None and not _ORIGIN.fullmatch(configured):
        raise CannotStart(
            "TALLYSTICK_STUDIO_ORIGIN: takes an origin such as https://studio.example.com, "
            "without a path"
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


def place_of(configured: str | None, host: str) -> Place:
    """The place that a request to `host` came to.

    Without a configured origin that is `http://localhost` and no other name, so that no page of
    somebody else's can have this server answer under its own name.

    Raises:
        Forbidden: it came to another one.
    """
    if configured is not None:
        if host != configured.partition("://")[2]:
            raise Forbidden(f"the Studio is at {configured}/studio", code="wrong_origin")
        return Place(configured)
    if not _LOCAL.fullmatch(host):
        raise Forbidden(
            "open the Studio at http://localhost, or set TALLYSTICK_STUDIO_ORIGIN",
            code="wrong_origin",
        )
    return Place(f"http://{host}")
