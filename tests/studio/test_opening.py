"""Sessions are opened by the passkey of their owner, over exactly the grant that was shown."""

import json
import re
from html import unescape
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from api.studio import passkeys
from api.studio.passkeys import Answer
from engine.audit.consent import signer
from engine.audit.verify import Verdict, verify
from engine.evidence.chain_view import GatewayView
from engine.policy.limits import Limits
from engine.workspaces.people import Assertion
from tests.studio.conftest import Opened
from tests.studio.visitor import Form, Visitor
from tests.world import USD, WORKSPACE

NEW = "/studio/sessions/new"
ASKED = {
    "label": "web <checkout>",
    "agent_id": "shop",
    "duration_hours": "12",
    "max_per_transaction": "25",
    "max_per_day": "100.50",
    "max_per_week": "",
    "max_per_month": "50000",
    "require_approval_above": "500",
    "merchants": "books\nbakery",
    "payments_per_hour": "10",
    "lifetime": "900.50",
    "from": "22:00",
    "until": "06:00",
    "day:Fri": "on",
    "never": "casino",
    "others": "at most 3 payments per lifetime",
    "permissions": "pay",
    "approvals_required": "1",
}


def wizard(visitor: Visitor, kind: str = "app", **changes: str) -> Any:
    """Fill the form in and send it."""
    form = visitor.form(f"{NEW}?type={kind}", NEW)
    chain = re.search(r'name="(chain:[^"]*)"', visitor.get(NEW).text)
    assert chain is not None
    return visitor.send(form, **{**ASKED, chain[1]: "on", "mint_pkp": "on", **changes})


def to_sign(page: Any) -> Form:
    """The form of the page that shows a grant."""
    assert page.status_code == 200, page.text
    found = re.search(r"<form([^>]*data-passkey[^>]*)>(.*?)</form>", page.text, re.DOTALL)
    assert found is not None
    return Form(found[1], found[2])


def session_of(form: Form) -> str:
    return form.action.split("/")[3]


def test_a_passkey_signs_the_grant_that_is_shown_and_the_chain_has_its_consent(
    studio: Opened,
) -> None:
    engine, visitor = studio.world.engine, studio.visitor("operator")
    page = wizard(visitor)
    form = to_sign(page)
    view = engine.sessions.get(WORKSPACE, session_of(form))
    digest = view.grant.digest(engine.sessions.domain)
    assert form.options["challenge"] == passkeys.encoded(digest)
    shown = unescape(page.text)
    chain = engine.deployment.chain
    for text in ("0x" + digest.hex(), view.grant.session_key, view.grant.owner, "$100.50", chain):
        assert text in shown, text
    assert view.state == "awaiting_consent"
    assert view.grant.limits == Limits(25 * USD, 100_500_000, None, 50_000 * USD, 500 * USD)
    assert (view.grant.merchants, view.grant.chains) == (("books", "bakery"), (chain,))
    assert view.grant.conditions == (
        "at most 10 payments per hour",
        "at most 3 payments per lifetime",
        "lifetime at most 900.5 USD",
        "never merchant casino",
        "only 00:00-06:00 UTC on Sat",
        "only 22:00-24:00 UTC on Fri",
    )
    for each in view.grant.conditions:
        assert each in shown
    assert "zai_session_" not in re.sub(r"<form.*?</form>", "", page.text, flags=re.DOTALL)
    done = visitor.answer(form, studio.passkeys["operator"])
    token = re.search(r"zai_session_[0-9a-f]{64}", done.text)
    assert (done.status_code, token is None) == (200, False)
    holder = engine.access.session_holder(token[0] if token else "")
    assert holder.session_id == view.id
    found = re.search(r'<pre id="configuration"[^>]*>(.*?)</pre>', done.text, re.DOTALL)
    assert found is not None
    made = json.loads(unescape(found[1]))
    assert made["session_token"] == (token and token[0])
    assert made["session"]["limits"]["max_per_day"] == 100.5
    view = engine.sessions.get(WORKSPACE, view.id)
    assert (view.state, view.consent) == ("active", "passkey")
    engine.anchor()
    report = verify(
        engine.evidence(WORKSPACE, view.id),
        GatewayView(engine.gateway),
        registry=engine.deployment.registry,
    )
    check = next(check for check in report.checks if check.name == "consent")
    assert (check.verdict, check.reason) == (
        Verdict.VERIFIED,
        f"signed by {view.grant.owner} (passkey)",
    )
    assert visitor.get(f"/studio/sessions/{view.id}/consent").status_code == 409


def test_only_the_owner_s_passkey_over_this_grant_counts(studio: Opened) -> None:
    engine, visitor = studio.world.engine, studio.visitor("operator")
    mine = studio.passkeys["operator"]
    form, other = to_sign(wizard(visitor)), to_sign(wizard(visitor))
    view = engine.sessions.get(WORKSPACE, session_of(form))
    signed = mine.get(other.options["challenge"])
    assert visitor.send(form, answer=json.dumps(signed)).status_code == 401
    assert visitor.answer(form, studio.passkeys["admin"]).status_code == 401
    assert visitor.send(form, answer="").status_code == 401
    swapped = {"token": other.fields["token"]}
    good = json.dumps(mine.get(form.options["challenge"]))
    assert visitor.send(form, answer=good, **swapped).status_code == 403
    admin = studio.visitor("admin")
    page = admin.get(f"/studio/sessions/{view.id}/consent")
    assert (page.status_code, "Only its owner can sign it" in page.text) == (200, True)
    csrf = admin.form("/studio/", "/studio/sign-out").fields["csrf"]
    form.fields["csrf"] = csrf
    theirs = json.dumps(studio.passkeys["admin"].get(form.options["challenge"]))
    assert admin.send(form, answer=theirs).status_code == 401
    assert engine.sessions.get(WORKSPACE, view.id).state == "awaiting_consent"


def test_what_cannot_be_is_said_beside_what_was_filled_in(studio: Opened) -> None:
    visitor = studio.visitor("admin")
    for wrong, title in (
        ({"max_per_day": "1e3"}, "Per 24 hours"),
        ({"duration_hours": "999"}, "Hours until it expires"),
        ({"others": "when it rains"}, "Other conditions"),
        ({"others": "at most 9 payments per hour"}, "Other conditions"),  # it is 10 already
        ({"approvals_required": "x"}, "Approvals needed"),
        ({"agent_id": "a b"}, "Application"),
        ({"label": "l" * 101}, "Label"),
        ({"payments_per_hour": "0"}, "Payments per hour"),
        ({"lifetime": "-1"}, "In its whole life"),
        ({"from": "25:00"}, "From"),
        ({"until": "22:00"}, "Until"),
        ({"never": "x" * 257}, "Never these merchants"),
        ({"merchants": "x" * 257}, "Merchants"),
        ({"never": "API.shop.test"}, "Never these merchants"),
        ({"others": "merchant API.shop.test at most 1 USD per day"}, "Other conditions"),
        ({"merchants": "API.shop.test"}, "Merchants"),
    ):
        page = wizard(visitor, **wrong)
        told, name = unescape(page.text), next(iter(wrong))
        assert page.status_code == 422, wrong
        assert f"<strong>{title}</strong>" in told, told
        assert re.search(
            f'<[a-z]+ name="{name}"[^>]*aria-invalid="true"[^>]* autofocus', page.text
        ), wrong
        assert 'value="25"' in told
        assert wrong[name] in told
    assert wizard(visitor, kind="agent", agent_id="nobody").status_code == 422
    form = visitor.form(NEW, NEW)
    fewer = {name: value for name, value in ASKED.items() if name != "max_per_day"}
    assert "is missing" in visitor.send(form, **fewer).text


def test_a_session_is_rotated_by_one_that_takes_its_place(studio: Opened) -> None:
    engine, visitor = studio.world.engine, studio.visitor("operator")
    limits = Limits(7 * USD, 20 * USD, None, None, 5 * USD)
    had = {
        "agent_id": "trader",
        "merchants": ("books",),
        "conditions": ("at most 10 payments per hour", "never merchant casino"),
    }
    old = studio.world.session(limits, label="daily", **had)
    form = visitor.form(f"{NEW}?replaces={old.id}", NEW)
    page = visitor.get(f"{NEW}?replaces={old.id}").text
    filled = dict(re.findall(r'<input name="([a-z_]+)"[^>]* value="([^"]*)"', page))
    assert (filled["label"], filled["max_per_day"], filled["max_per_week"]) == ("daily", "20", "")
    filled |= dict(re.findall(r'<textarea name="([a-z_]+)"[^>]*>([^<]*)<', page))
    sent = visitor.send(form, **filled, agent_id="trader")
    done = visitor.answer(to_sign(sent), studio.passkeys["operator"])
    assert f"/studio/sessions/{old.id}" in done.text
    new = engine.sessions.get(WORKSPACE, session_of(to_sign(sent)))
    assert (new.state, new.policy.limits, new.grant.merchants) == ("active", limits, ("books",))
    assert new.grant.conditions == had["conditions"]
    assert engine.sessions.get(WORKSPACE, old.id).state == "active"  # until it is revoked
    told = visitor.get(f"/studio/sessions/{new.id}.json").json()
    replaced = {"id": old.id, "label": "daily", "live": True, "rotates": False}
    assert (told["replaces"], told["rotation"]) == (replaced, {"from": None, "to": None})
    child = studio.world.session(limits, **had, parent_id=old.id)
    assert visitor.get(f"{NEW}?replaces={child.id}").status_code == 409
    odd = studio.world.session(metadata_json='{"replaces":["x"]}')
    assert visitor.get(f"/studio/sessions/{odd.id}").status_code == 200


def test_the_configuration_is_a_file_that_has_no_token_later(studio: Opened) -> None:
    visitor = studio.visitor("viewer")
    session = studio.world.session(label="exported")
    file = visitor.get(f"/studio/sessions/{session.id}/configuration")
    assert file.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in file.headers["content-security-policy"]
    made = file.json()
    assert (made["session_id"], made["session_token"]) == (session.id, None)
    operator = studio.visitor("operator")
    csrf = operator.form("/studio/", "/studio/sign-out").fields["csrf"]
    path = f"/studio/sessions/{session.id}/configuration"
    token = studio.world.token
    sent = operator.ask("POST", path, data={"csrf": csrf, "token": token})
    assert sent.json()["session_token"] == token
    other = studio.world.create(mint_pkp=False)
    assert other.id != session.id
    foreign = {"csrf": csrf, "token": studio.world.token}
    assert operator.ask("POST", path, data=foreign).status_code == 403


def test_small_amounts_are_in_digits_wherever_they_are_json(studio: Opened) -> None:
    visitor = studio.visitor("operator")
    form = to_sign(wizard(visitor, max_per_transaction="0.000012"))
    session_id = session_of(form)
    waits = visitor.get(f"/studio/sessions/{session_id}/consent.json")
    done = visitor.answer(form, studio.passkeys["operator"])
    file = visitor.get(f"/studio/sessions/{session_id}/configuration")
    twin = visitor.get(f"/studio/sessions/{session_id}.json")
    for page in (waits, done, file, twin):
        assert page.status_code == 200
        assert "0.000012" in page.text
        assert "1.2e-05" not in page.text


@pytest.mark.parametrize("high", [False, True])
def test_authenticators_may_answer_with_either_s(studio: Opened, high: bool) -> None:
    passkey, world = studio.passkeys["operator"], studio.world
    credential = studio.people.passkeys(studio.persons["operator"].key_id)[0]
    grant = world.session(label="s").grant
    domain = world.engine.sessions.domain
    response = passkey.get(passkeys.encoded(grant.digest(domain)))["response"]
    r, s = decode_dss_signature(passkeys.decoded(response["signature"]))
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    s = max(s, order - s) if high else min(s, order - s)
    assertion = Assertion(
        passkeys.decoded(response["clientDataJSON"]).decode(),
        passkeys.decoded(response["authenticatorData"]),
        encode_dss_signature(r, s),
    )
    signature = passkeys.owner_signature(Answer(credential, 1, assertion))
    assert signer("passkey", signature, grant, domain) == passkeys.owner(credential)
