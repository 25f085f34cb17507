"""Signing in by passkey, setting the first one up, signing out."""

from starlette.responses import Response

from api.studio import passkeys
from api.studio.asked import Asked, PageView

_SIGN_IN = {"act": "sign in"}


def sign_in(asked: Asked) -> PageView:
    """Whoever has a passkey."""
    challenge = asked.studio.challenges.make(_SIGN_IN, None, asked.now_ms)
    options = passkeys.request_options(asked.place, challenge.raw, [])
    return _page("sign_in.html", "Sign in", options, asked.studio.challenges.fields(challenge))


def signed_in(asked: Asked) -> Response:
    """The answer of a passkey signs its person in; a browser that was signed in before is out."""
    studio = asked.studio
    given = asked.form.get("answer", "")
    with asked.guessing(passkeys.credential_id(given)):
        challenge = studio.challenges.recognised(_SIGN_IN, None, asked.form, asked.now_ms)
        answer = passkeys.answered(asked.place, challenge.raw, None, given, studio.people)
        _, secret = studio.people.sign_in(
            answer.credential, answer.sign_count, challenge.raw.hex(), challenge.expires_ms
        )
    if asked.secret:
        studio.people.sign_out(asked.secret)
    return asked.signed_in("/", secret)


def set_up(_asked: Asked) -> PageView:
    """Where the token is given; it stands behind the # of the address, which is never sent."""
    return PageView("set_up.html", "Set up your passkey", {"name": None, "ceremony": None})


def begun(asked: Asked) -> Response:
    """The token is good: have the browser make a passkey."""
    token = asked.form.get("token", "").strip()
    with asked.guessing():
        person = asked.studio.people.in_setup(token, asked.now_ms)
    challenge = asked.studio.challenges.make(_setting_up(person.key_id), None, asked.now_ms)
    options = passkeys.creation_options(asked.place, person, challenge.raw)
    fields = {**asked.studio.challenges.fields(challenge), "token": token}
    view = _page("set_up.html", "Set up your passkey", options, fields)
    view.data.update(name=person.name, role=person.role)
    return asked.page(view)


def done(asked: Asked) -> Response:
    """The passkey is made; the token is used up, and the passkey signs in."""
    studio, form = asked.studio, asked.form
    token = form.get("token", "")
    with asked.guessing():
        person = studio.people.in_setup(token, asked.now_ms)
        act = _setting_up(person.key_id)
        challenge = studio.challenges.recognised(act, None, form, asked.now_ms)
        made = passkeys.created(asked.place, challenge.raw, form.get("answer", ""))
    studio.people.set_up(token, made)
    return asked.see("/sign-in")


def signed_out(asked: Asked) -> Response:
    """This browser is."""
    asked.studio.people.sign_out(asked.secret)
    return asked.signed_out("/sign-in")


def _setting_up(key_id: str) -> dict[str, str]:
    return {"act": "set up a passkey", "person": key_id}


def _page(template: str, title: str, options: str, fields: dict[str, str]) -> PageView:
    return PageView(template, title, {"ceremony": {"options": options, "fields": fields}})
