"""How pages are rendered: templates that escape everything, and files named by their hash."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

_HERE = Path(__file__).parent
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Static:
    """Our stylesheet and script, kept in memory. A file has its hash in its path, so browsers may
    keep it for good."""

    def __init__(self) -> None:
        files = sorted((_HERE / "static").iterdir())
        self._files = {file.name: file.read_bytes() for file in files if file.suffix in _TYPES}
        self._hashes = {
            name: hashlib.sha256(content).hexdigest()[:16] for name, content in self._files.items()
        }

    def url(self, name: str) -> str:
        """The path of a file."""
        return f"/studio/static/{self._hashes[name]}/{name}"

    async def serve(self, request: Request) -> Response:
        """Answer with a file."""
        name = request.path_params["name"]
        if self._hashes.get(name) != request.path_params["hash"]:
            return Response("not found", 404)
        return Response(
            self._files[name],
            media_type=_TYPES[Path(name).suffix],
            headers={"cache-control": "public, max-age=31536000, immutable"},
        )


def environment(static: Static, tokens: Mapping[str, str]) -> Environment:
    """The templates. A name that is not given is an error, not an empty place. `tokens` are the
    symbols of assets (CAIP-19), which is what people know them by."""

    def token(asset: str) -> Markup:
        shown = Markup('<code class="under">{}</code>').format(asset)
        return Markup("{}{}").format(tokens[asset], shown) if asset in tokens else shown

    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(static=static.url, token=token)
    made.filters.update(when=_when, usd=_usd, short=_short, words=_words, percent=_percent)
    return made


def _when(text: str | None) -> Markup:
    """A time that `time_text` wrote, for people: UTC, to the minute."""
    if text is None:
        return Markup('<span class="soft">never</span>')
    moment = datetime.fromisoformat(text).astimezone(UTC)
    shown = f"{moment.day} {moment:%b %Y, %H:%M}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(text, text, shown)


def _usd(amount: float | None) -> str:
    """Dollars, to the cent at least; none is no limit."""
    if amount is None:
        return "unlimited"
    whole, _, part = f"{amount:,.6f}".partition(".")
    return f"${whole}.{part[:2]}{part[2:].rstrip('0')}"


def _short(text: str) -> str:
    """A hash or an id, so that it fits: its beginning and its end."""
    return text if len(text) <= 20 else f"{text[:10]}…{text[-6:]}"


def _words(text: str) -> str:
    """A name of ours in words: `awaiting_consent`, `payment.decided`."""
    return text.replace("_", " ").replace(".", " ")


def _percent(share: float) -> str:
    return f"{share:.0%}"
