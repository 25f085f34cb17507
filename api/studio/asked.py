"""One request to the Studio: who asks, what the form says, and what is shown."""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from api.studio import passkeys
from api.studio.challenges import Challenges
from api.studio.failures import Failures
from api.studio.place import PREFIX, Place, origin_of, place_of
from api.studio.templating import Static, environment
from api.studio.uploads import Upload
from engine.engine import Engine
from engine.errors import Forbidden, InvalidInput, NotFound, Unauthenticated
from engine.sessions.inventory import Inventory
from engine.workspaces.people import SIGNED_IN_MAX_MS, Act, People, Person

FIELDS_MAX = 256
_FOREVER_S = SIGNED_IN_MAX_MS // 1000


class Studio:
    """What all requests share."""

    def __init__(self, engine: Engine, static: Static) -> None:
        self.engine = engine
        self.people = People(engine.database, engine.writer)
        self.inventory = Inventory(engine.database, engine.writer, engine.sessions)
        self.challenges = Challenges(engine.derive("studio challenges"))
        self.form_key = engine.derive("studio forms")
        self.failures = Failures()
        tokens = {each.asset: each.symbol for each in engine.deployment.tokens}
        self.templates = environment(static, tokens)


@dataclass(frozen=True, slots=True)
class PageView:
    """A page: its template, its title, and the data that the JSON twin has, too. What is `private`
    is on the page alone: secrets that are shown once."""

    template: str
    title: str
    data: dict[str, Any]
    private: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a form carries so that a passkey can answer: see `Challenges`."""

    options: str
    fields: Mapping[str, str]


class Asked:
    """A request. `admit` first; then `person` is who asks, or None on a page for anybody."""

    def __init__(self, studio: Studio, request: Request, body: bytes) -> None:
        self.studio, self.engine, self.request = studio, studio.engine, request
        self.person: Person | None = None
        self.newest = -1
        """The place of the newest event when the asker was admitted."""
        self.upload: Upload | None = None
        self._body = body

    @cached_property
    def place(self) -> Place:
        """Where the request came to; raises `Forbidden`."""
        host = self.request.headers.get("host", "")
        return place_of(self.engine.settings.studio_origin, host, self._port)

    @property
    def home(self) -> str:
        """Where the Studio begins; whoever came to another place can sign in at its own only."""
        try:
            _ = self.place
        except Forbidden:
            origin = origin_of(self.engine.settings.studio_origin, self._port)
            return f"{origin}{PREFIX}/sign-in"
        return f"{PREFIX}/"

    @property
    def _port(self) -> int | None:
        _, port = self.request.scope.get("server") or ("", None)
        return port

    @property
    def now_ms(self) -> int:
        """The time."""
        return self.engine.clock()

    @property
    def path(self) -> Mapping[str, str]:
        """What the path names.

        Raises:
            NotFound: nothing could have such a name.
        """
        if any("\0" in each for each in self.request.path_params.values()):
            raise NotFound("there is no such page")
        return self.request.path_params

    @cached_property
    def query(self) -> Mapping[str, str]:
        """What the query says.

        Raises:
            InvalidInput: no database has such text.
        """
        _check_text(self.request.query_params)
        return self.request.query_params

    @property
    def who(self) -> Person:
        """Who asks, on a page for those who are signed in."""
        assert self.person is not None
        return self.person

    @property
    def secret(self) -> str:
        """What the cookie holds, empty without one."""
        return self.request.cookies.get(self.place.cookie, "")

    @cached_property
    def form(self) -> Mapping[str, str]:
        """What the form says.

        Raises:
            InvalidInput: it is none, or has a field twice.
        """
        if self.upload is not None:
            _check_text(self.upload.fields)
            return self.upload.fields
        try:
            pairs = parse_qsl(
                self._body.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=bool(self._body),
                max_num_fields=FIELDS_MAX,
                errors="strict",
            )
        except ValueError as error:
            raise InvalidInput("form", "cannot be read") from error
        fields = dict(pairs)
        if len(fields) < len(pairs):
            raise InvalidInput("form", "has a field twice")
        _check_text(fields)
        return fields

    @property
    def uploaded(self) -> Upload:
        """The file that the form brings, where it brings one."""
        assert self.upload is not None
        return self.upload

    def admit(self, act: Act | None, *, seen: bool = True) -> None:
        """Find out who asks; without `seen` that is no sign that somebody sits there.

        Raises:
            Forbidden: the role does not allow it, or it is not the Studio's own address.
            Unauthenticated: nobody is signed in.
        """
        place = self.place
        if act is None and place.cookie not in self.request.cookies:
            return
        try:
            seen = seen and "tallystick-live" not in self.request.headers  # it renews itself
            self.person = self.studio.people.signed_in(self.secret, self.now_ms, seen=seen)
        except Unauthenticated:
            if act is not None:
                raise
        if self.person is not None:  # before anything is read that the page shows
            self.newest = self.engine.feed.begin(None) - 1
        if act is not None and not self.who.may(act):
            raise Forbidden(f"as {self.who.role} you may not do this", code="role")

    @contextmanager
    def guessing(self, credential_id: str | None = None) -> Iterator[None]:
        """Within this somebody may only guess: attempts that fail are counted, by the address
        they come from and the passkey that they name, if somebody has it.

        Raises:
            RateLimited: too many failed.
        """
        client = self.request.client
        known = credential_id and self.studio.people.credential(credential_id)
        source = f"{client.host if client else ''} {known.id if known else ''}"
        self.studio.failures.check(source, self.now_ms)
        try:
            yield
        except Unauthenticated:
            self.studio.failures.note(source, self.now_ms)
            raise

    def check_origin(self) -> None:
        """A form must come from a page of ours.

        Raises:
            Forbidden: it does not, or no browser says so.
        """
        if self.request.headers.get("origin") != self.place.origin:
            raise Forbidden("the form is not from a page of the Studio", code="wrong_origin")

    def check_form(self) -> None:
        """And it must be the form of whoever is signed in here.

        Raises:
            Forbidden: it is not.
        """
        if not hmac.compare_digest(self.form.get("csrf", "").encode(), self.csrf.encode()):
            raise Forbidden("the form is not of this sign-in; open it again", code="wrong_form")

    @property
    def csrf(self) -> str:
        """What every form of a signed-in browser carries."""
        key = self.studio.form_key
        return hmac.new(key, self.secret.encode(), hashlib.sha256).hexdigest()

    def proof(self, act: Mapping[str, str]) -> Proof:
        """Have the passkey of whoever asks consent to this act, and to nothing else."""
        challenge = self.studio.challenges.make(act, self.who.key_id, self.now_ms)
        mine = [each.id for each in self.studio.people.passkeys(self.who.key_id)]
        options = passkeys.request_options(self.place, challenge.raw, mine)
        return Proof(options, self.studio.challenges.fields(challenge))

    def check_proof(self, act: Mapping[str, str]) -> None:
        """The form brings the consent to exactly this act, which is used up by this.

        Raises:
            Unauthenticated: it does not.
        """
        studio = self.studio
        challenge = studio.challenges.recognised(act, self.who.key_id, self.form, self.now_ms)
        given = self.form.get("answer", "")
        answer = passkeys.answered(self.place, challenge.raw, self.who.key_id, given, studio.people)
        studio.people.prove(
            self.who,
            answer.credential,
            answer.sign_count,
            challenge.raw.hex(),
            challenge.expires_ms,
            asked=challenge.told,
            assertion=answer.assertion,
        )

    def page(self, view: PageView, status: int = 200) -> Response:
        """The page as HTML."""
        template = self.studio.templates.get_template(view.template)
        shown = template.render(
            **view.data,
            **view.private,
            title=view.title,
            person=self.person,
            csrf="" if self.person is None else self.csrf,
            proof=self.proof,
            home=self.home,
            here=self.request.url.path,
            newest=self.newest,
            waiting=self._waiting() if status == 200 else 0,
        )
        return HTMLResponse(shown, status)

    def _waiting(self) -> int:
        """How many approvals wait, for whoever is signed in."""
        if self.person is None:
            return 0
        _, waiting = self.engine.approvals.page(
            self.person.workspace_id,
            self.now_ms,
            session_id=None,
            state="waiting",
            offset=0,
            limit=1,
        )
        return waiting

    def see(self, path: str) -> Response:
        """Go on at another page of the Studio."""
        return RedirectResponse(f"/studio{path}", 303)

    def signed_in(self, path: str, secret: str) -> Response:
        """The same, for a browser that is signed in from now on."""
        answer, place = self.see(path), self.place
        answer.set_cookie(
            place.cookie,
            secret,
            max_age=_FOREVER_S,
            path=place.cookie_path,
            secure=place.secure,
            httponly=True,
            samesite="strict",
        )
        return answer

    def signed_out(self, path: str) -> Response:
        """The same, for one that is not any more."""
        answer, place = self.see(path), self.place
        answer.delete_cookie(
            place.cookie,
            path=place.cookie_path,
            secure=place.secure,
            httponly=True,
            samesite="strict",
        )
        return answer


def _check_text(fields: Mapping[str, str]) -> None:
    """SQLite would take a NUL, PostgreSQL has none."""
    for name, text in fields.items():
        if "\0" in text:
            raise InvalidInput(name.partition("\0")[0] or "form", "has a NUL character")
        if "\0" in name:
            raise InvalidInput("form", "has a NUL character")
