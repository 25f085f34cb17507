"""Pages, their headers, forms and roles; what is stored is shown and never run."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
import sqlalchemy as sa

from api.studio import templating
from api.studio.app import FILES, FORMS, HEADERS, PAGES
from api.studio.place import check_origin
from engine.db.tables import Session, table
from engine.errors import CannotStart
from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from engine.workspaces.agent_keys import NewAgentKey
from engine.workspaces.people import ACTS, IDLE_MS, MAY, SIGNED_IN_MAX_MS
from tests.ledger.approving import asked_for
from tests.studio.conftest import Opened
from tests.studio.visitor import Visitor
from tests.world import USD, WORKSPACE

_sessions = table(Session)
LIMITS = Limits(100 * USD, 200 * USD, 700 * USD, None, 50 * USD)
TEMPLATES = Path(templating.__file__).with_name("templates")
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "</title><svg/onload=alert(1)>",
)


def test_every_cell_of_a_table_that_becomes_a_list_on_a_phone_is_named() -> None:
    tables = [
        (path.name, found)
        for path in TEMPLATES.glob("*.html")
        for found in re.findall(r'<table class="stack">.*?</table>', path.read_text(), re.DOTALL)
    ]
    assert [name for name, _ in tables].count("agents.html") == 3
    for name, found in tables:
        cells = re.findall(r"<td[^>]*>", found)
        assert [cell for cell in cells if "data-name=" not in cell] == [], name


def test_what_is_pressed_to_revoke_looks_the_same_on_every_page() -> None:
    text = "".join(path.read_text() for path in TEMPLATES.glob("*.html"))
    found = re.findall(r"<(?:button|a)\b([^>]*)>Revoke", text)
    assert len(found) >= 6
    assert [each for each in found if not re.search(r'class="[^"]*\bdanger\b', each)] == []


@pytest.fixture(scope="module")
def places(studio: Opened) -> dict[str, str]:
    """What the paths of pages name, of a session in which something happened."""
    world = studio.world
    session = world.session(LIMITS, label="lunch", agent_id="shopper", agent_name="Shopper")
    payment = world.pay(session, 40)
    approval = asked_for(world, session, 60)
    waiting = world.create(label="to be signed")
    webhook, _ = world.engine.webhooks.create(
        WORKSPACE, "https://localhost/hook", ("*",), by=studio.persons["admin"].key_id
    )
    return {
        "session_id": session.id,
        "payment_id": payment.id,
        "approval_id": approval.id,
        "waiting_id": waiting.id,
        "webhook_id": webhook.id,
        "key_id": studio.persons["viewer"].key_id,
    }


def at(path: str, places: dict[str, str]) -> str:
    """The address of a page, of a form or of a file."""
    if path.endswith("/consent"):
        path = path.replace("{session_id}", "{waiting_id}")
    return "/studio" + path.format_map(places)


def test_every_answer_has_the_headers_and_no_inline_script_or_style(
    studio: Opened, places: dict[str, str]
) -> None:
    policy = HEADERS["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    visitor = studio.visitor("admin")
    for path, _, _ in PAGES:
        for suffix in ("", ".json"):
            address = "/index" if path == "/" and suffix else path
            answer = visitor.get(at(address, places) + suffix)
            assert answer.status_code == 200, (path, answer.text)
            for name, value in HEADERS.items():
                assert answer.headers[name] == value, (path, name)
            if not suffix:
                assert not re.search(
                    r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", answer.text
                )
                for source in re.findall(r'(?:src|href)="([^"]*)"', answer.text):
                    assert source.startswith(("/studio/", "#")), source
    for found in re.findall(r'"(/studio/static/[^"]*)"', visitor.get("/studio/").text):
        file = visitor.get(found)
        assert file.status_code == 200
        assert "immutable" in file.headers["cache-control"]
    assert visitor.get("/studio/static/0000000000000000/studio.js").status_code == 404


def test_the_address_that_people_are_told_leads_there(studio: Opened) -> None:
    visitor = Visitor(studio.app, host="elsewhere.test")
    answer = visitor.get("/studio")
    assert (answer.status_code, answer.headers["location"]) == (307, "/studio/")
    assert visitor.ask("POST", "/studio").status_code == 405


def test_the_roles_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/studio.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in text.splitlines()
        if line.startswith("| ") and line.count("|") == len(ACTS) + 2
    ]
    assert rows[0] == ["Role", *ACTS]
    told = {row[0]: {act for act, cell in zip(ACTS, row[1:], strict=True) if cell} for row in rows}
    assert {role: told[role] for role in MAY} == {role: set(may) for role, may in MAY.items()}


def test_a_role_may_what_the_table_says(studio: Opened, places: dict[str, str]) -> None:
    for role, may in MAY.items():
        visitor = studio.visitor(role)
        for path, act, _ in (*PAGES, *FILES):
            if act is None:
                continue
            answer = visitor.get(at(path, places))
            assert (answer.status_code == 403) == (act not in may), (role, path)
        for path, act, _ in FORMS:
            if act is None or path == "/sign-out":
                continue
            answer = visitor.ask("POST", at(path, places), data={})
            assert answer.status_code == 403, (role, path)
            assert ("you may not do this" in answer.text) == (act not in may), (role, path)
    nobody = studio.visitor()
    for path, act, _ in (*PAGES, *FILES):
        if act is not None:
            assert nobody.get(at(path, places)).status_code == 303
            assert nobody.get(at(path, places) + ".json").status_code in (
                401,
                404,
            )


def test_a_form_comes_from_our_page_and_from_this_sign_in(
    studio: Opened, places: dict[str, str]
) -> None:
    pause = f"/studio/sessions/{places['session_id']}/pause"
    visitor, other = studio.visitor("admin"), studio.visitor("admin")
    form = visitor.form(f"/studio/sessions/{places['session_id']}", pause)
    assert set(form.fields) == {"csrf"}
    for origin in (None, "null", "http://evil.test", "https://localhost:8402", "http://localhost"):
        for path, _, _ in FORMS:
            answer = visitor.ask("POST", at(path, places), origin=origin, data=form.fields)
            assert (answer.status_code, "wrong_origin" in answer.text) == (403, True), path
    for csrf in ("", "0" * 64, form.fields["csrf"][:-1]):
        assert visitor.ask("POST", pause, data={"csrf": csrf}).status_code == 403
    assert other.send(form).status_code == 403
    assert visitor.ask("POST", pause, data={}).status_code == 403
    assert visitor.ask("POST", pause, content=b"csrf=1&csrf=2").status_code == 422
    assert visitor.ask("POST", pause, content=b"\xff=%%").status_code == 422
    assert visitor.get(pause).status_code == 404
    assert _state(studio, places) == "active"


@pytest.mark.parametrize("wrong", ["studio.test", "http://studio.test", "https://a.test/x"])
def test_an_origin_that_is_none_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(CannotStart, match="TALLYSTICK_STUDIO_ORIGIN"):
        check_origin(wrong)


def test_a_sign_in_is_new_each_time_and_ends(studio: Opened) -> None:
    visitor = studio.visitor()
    visitor.cookie = planted = "0" * 64
    visitor.sign_in(studio.passkeys["auditor"])
    first = visitor.cookie
    assert first not in (None, planted)
    flags = studio.visitor()
    form = flags.form("/studio/sign-in", "/studio/sign-in")
    header = flags.answer(form, studio.passkeys["auditor"]).headers["set-cookie"]
    assert {"HttpOnly", "Path=/studio", "SameSite=strict"} <= set(header.split("; "))
    visitor.sign_in(studio.passkeys["auditor"])
    second = visitor.cookie
    visitor.cookie = first
    assert visitor.get("/studio/").status_code == 303  # the earlier one is out
    visitor.cookie = second
    assert visitor.get("/studio/").status_code == 200
    visitor.send(visitor.form("/studio/", "/studio/sign-out"))
    assert visitor.cookie is None
    visitor.cookie = second
    assert visitor.get("/studio/").status_code == 303
    visitor.sign_in(studio.passkeys["auditor"])
    for _ in range(SIGNED_IN_MAX_MS // IDLE_MS):
        studio.clock.now_ms += IDLE_MS - 1
        assert visitor.get("/studio/").status_code == 200
    studio.clock.now_ms += SIGNED_IN_MAX_MS // IDLE_MS
    assert visitor.get("/studio/").status_code == 303
    visitor.sign_in(studio.passkeys["auditor"])
    studio.clock.now_ms += IDLE_MS
    assert visitor.get("/studio/").status_code == 303


def test_what_is_stored_is_text(studio: Opened) -> None:
    world, visitor = studio.world, studio.visitor("admin")
    for text in HOSTILE:
        session = world.session(
            LIMITS, label=text, agent_id=text.replace(" ", "_"), agent_name=text
        )
        payment = world.pay(session, 5, merchant=text)
        approval = asked_for(world, session, 60, merchant=text)
        by = studio.persons["admin"]
        new = NewAgentKey(name=text, agent_id=session.agent_id)
        world.engine.keys.agents.create(WORKSPACE, new, by=by.key_id)
        webhook, _ = world.engine.webhooks.create(
            WORKSPACE, "https://localhost/", ("*",), description=text, by=by.key_id
        )
        studio.people.invite(by, "viewer", text)
        limits = BudgetLimits(per_day=10**6 * USD)
        world.engine.budgets.set(WORKSPACE, session.agent_id, limits, by=by.key_id)
        budget = visitor.get("/studio/budgets/set", params={"agent": session.agent_id})
        assert (budget.status_code, "<script>alert" in budget.text) == (200, False)
        waiting = world.create(LIMITS, label=text, merchants=(text,), wait_s=0)
        for path in (
            "/agents",
            "/budgets",
            "/webhooks",
            f"/sessions/{waiting.id}/consent",
            f"/webhooks/{webhook.id}",
            "/people",
            f"/sessions/new?replaces={session.id}",
            f"/sessions/{session.id}/restrict",
            f"/?search={session.id}",
            "/?type=all",
            f"/sessions/{session.id}",
            f"/sessions/{session.id}/payments/{payment.id}",
            f"/approvals/{approval.id}",
            "/approvals",
            f"/revoke?search={session.id}",
        ):
            page = visitor.get("/studio" + path)
            assert page.status_code == 200, path
            assert text in unescape(page.text), path
            if set("<>'\"") & set(text):
                assert text not in page.text, path
        tried = visitor.ask(
            "GET", f"/studio/sessions/{session.id}/try", params={"amount": "5", "merchant_id": text}
        )
        assert tried.status_code == 200
        assert "<script>alert" not in tried.text
        assert "<img src=x" not in tried.text
        world.engine.webhooks.delete(WORKSPACE, webhook.id, by=by.key_id)  # or it would be told all
    for template in TEMPLATES.glob("*.html"):
        assert not re.search(r"\|\s*safe|autoescape", template.read_text()), template
    for query in ({"search": HOSTILE[0]}, {"status": HOSTILE[0]}, {"page": HOSTILE[0]}):
        assert "<script>alert" not in visitor.ask("GET", "/studio/", params=query).text


def test_sessions_are_filtered_sorted_and_counted(studio: Opened) -> None:
    world, visitor = studio.world, studio.visitor("viewer")
    on_base = world.session(
        LIMITS, label="base", agent_id="counted", chains=("eip155:8453",), duration_ms=7_200_000
    )
    studio.clock.now_ms += 1
    anywhere = world.session(LIMITS, label="any", agent_id="counted", duration_ms=86_400_000)
    shop = world.session(type="app", label="shop", agent_id="counted")
    for _ in range(2):
        world.pay(anywhere, 45)
    world.pay(anywhere, 40)
    world.pay(anywhere, 35)

    def found(**query: str) -> list[str]:
        answer = visitor.ask("GET", "/studio/index.json", params={"agent": "counted", **query})
        return [each["id"] for each in answer.json()["sessions"]]

    assert found() == [anywhere.id, on_base.id]
    assert found(type="app") == [shop.id]
    assert set(found(type="all")) == {on_base.id, anywhere.id, shop.id}
    assert found(chain="eip155:8453") == [anywhere.id, on_base.id]
    assert found(chain="eip155:1") == [anywhere.id]
    assert found(sort="expiry") == [on_base.id, anywhere.id]
    assert found(sort="last_used") == [anywhere.id, on_base.id]
    assert found(label="base") == [on_base.id]
    assert found(search="BAS") == [on_base.id]
    assert found(search="%") == []
    for part in (on_base.grant.session_key[:14], "0X" + on_base.grant.session_key[2:14].upper()):
        assert found(search=part) == [on_base.id]
    assert found(search=on_base.grant.session_key[4:14]) == []
    assert found(search=on_base.user_wallet) == [anywhere.id, on_base.id]
    assert found(page="99") == [anywhere.id, on_base.id]  # the last page
    assert found(status="revoked") == []
    told = visitor.ask("GET", "/studio/index.json", params={"agent": "counted"}).json()["sessions"]
    row = told[0]
    assert (row["requests"], row["last_used_at"] is None) == (4, False)
    assert row["utilisation"][0] == {
        "window": "24 hours",
        "limit_usd": 200,
        "used_usd": 165,
        "share": 0.825,
        "near": True,
    }
    assert row["health"] == ["82% used in 24 hours"]
    studio.clock.now_ms = on_base.expires_ms - 3_600_000
    later = studio.visitor("viewer")
    told = later.ask("GET", "/studio/index.json", params={"label": "base"}).json()["sessions"]
    assert told[0]["health"] == ["expires within the hour"]


def test_what_cannot_be_shown_says_why(studio: Opened) -> None:
    visitor = studio.visitor("viewer")
    for path, status, title in (
        ("/studio/sessions/sess_nobody", 404, "Not found"),
        ("/studio/people", 403, "Not allowed"),
        ("/studio/?status=happy", 422, "Not shown"),
    ):
        page = visitor.get(path)
        assert (page.status_code, f"<h1>{title}</h1>" in page.text) == (status, True), path
        assert "Nothing was changed" not in page.text
    empty = visitor.get("/studio/?agent=nobody")
    assert ("No session is like this" in empty.text, "yet" in empty.text) == (True, False)


def test_a_damaged_session_hides_no_other(studio: Opened) -> None:
    engine, visitor = studio.world.engine, studio.visitor("operator")
    fine, unpaid, unread = (studio.world.session(LIMITS, label="beside") for _ in range(3))

    def store(session_id: str, **values: object) -> None:
        row = sa.update(_sessions).where(_sessions.c.id == session_id).values(**values)
        engine.writer.call(lambda batch: batch.update(row))
        engine.writer._forget_all()

    with engine.database.reading() as connection:
        grant = sa.select(_sessions.c.grant_json).where(_sessions.c.id == unread.id)
        as_it_was = connection.execute(grant).scalar_one()
    store(unpaid.id, policy_version=7)
    store(unread.id, grant_json="{}")
    assert visitor.get("/studio/?label=beside").status_code == 200
    told = visitor.ask("GET", "/studio/index.json", params={"label": "beside"}).json()["sessions"]
    assert {
        each["id"]: (each["is_active"], bool(each["utilisation"]), each["health"]) for each in told
    } == {fine.id: (True, True, []), unpaid.id: (False, False, ["damaged: nothing is paid"])}
    page = visitor.get("/studio/revoke?label=beside")
    assert (page.status_code, unread.id in page.text) == (200, True)
    store(unpaid.id, policy_version=unpaid.policy_version)
    store(unread.id, grant_json=as_it_was)


def test_how_many_approvals_wait_is_on_every_page(studio: Opened) -> None:
    visitor = studio.visitor("viewer")

    def told() -> int:
        found = re.search(r'class="waits"[^>]*>(\d+)<', visitor.get("/studio/").text)
        return int(found[1]) if found else 0

    before = told()
    approval = asked_for(studio.world, studio.world.session(LIMITS, label="one waits"), 60)
    assert told() == before + 1
    by = studio.persons["approver"].key_id
    studio.world.engine.approvals.deny(WORKSPACE, approval.id, by=by)
    assert told() == before


def test_what_was_filled_in_is_there_to_be_changed(studio: Opened) -> None:
    visitor = studio.visitor("operator")
    session = studio.world.session(label="changed")
    for page in (
        "/studio/agents/new-key?name=night&agent_id=a-7&days=12",
        "/studio/webhooks/new?url=https://localhost/12&event:payment.created=on",
        "/studio/budgets/set?given=1&max_per_day=12",
        f"/studio/sessions/{session.id}/restrict?given=1&payments_per_day=12",
    ):
        again = re.search(r'href="([^"]*)">Change it', visitor.get(page).text)
        assert again is not None, page
        form = visitor.get(unescape(again[1])).text
        assert re.search('value="[^"]*12"', form), page
        assert "data-passkey" not in form.partition("</form>")[0], page


def test_many_are_revoked_together_if_they_are_those_that_were_shown(studio: Opened) -> None:
    world, visitor = studio.world, studio.visitor("operator")
    first = [world.session(label="batch") for _ in range(3)]
    form = visitor.form("/studio/revoke?label=batch", "/studio/revoke")
    more = world.session(label="batch")
    late = visitor.send(form)
    assert (late.status_code, "selection_changed" in late.text) == (409, True)
    assert {world.engine.sessions.get(WORKSPACE, each.id).state for each in first} == {"active"}
    form = visitor.form("/studio/revoke?label=batch", "/studio/revoke")
    assert visitor.get("/studio/revoke.json?label=batch").json()["count"] == 4
    done = visitor.send(form)
    assert done.headers["location"] == "/studio/?type=agent&revoked=4"
    states = [world.engine.sessions.get(WORKSPACE, each.id).state for each in (*first, more)]
    assert states == ["revoked"] * 4
    acts, _ = world.engine.acts.page(
        WORKSPACE,
        actor=studio.persons["operator"].key_id,
        kinds=["session.revoked"],
        from_ms=None,
        until_ms=None,
        offset=0,
        limit=9,
    )
    assert len(acts) == 4


def test_what_raises_authority_needs_a_passkey_for_exactly_that(studio: Opened) -> None:
    world, visitor = studio.world, studio.visitor("operator")
    mine = studio.passkeys["operator"]
    one, two = (world.session(label="step up") for _ in range(2))
    for each in (one, two):
        world.engine.sessions.pause(WORKSPACE, each.id, by=studio.persons["operator"].key_id)
    page, path = f"/studio/sessions/{one.id}", f"/studio/sessions/{one.id}/resume"
    form = visitor.form(page, path)
    assert visitor.send(form).status_code == 401  # signed in is not enough
    assert visitor.answer(form, studio.passkeys["admin"]).status_code == 401
    form.action = f"/studio/sessions/{two.id}/resume"
    assert visitor.answer(form, mine).status_code == 401  # it was for the other one
    form.action = path
    signed = json.dumps(mine.get(form.options["challenge"]))
    assert visitor.send(form, answer=signed).status_code == 303
    world.engine.sessions.pause(WORKSPACE, one.id, by=studio.persons["operator"].key_id)
    assert visitor.send(form, answer=signed).status_code == 401
    fresh = json.dumps(mine.get(form.options["challenge"]))
    assert visitor.send(form, answer=fresh).status_code == 401
    states = [world.engine.sessions.get(WORKSPACE, each.id).state for each in (one, two)]
    assert states == ["paused", "paused"]


def test_an_approval_is_decided_by_a_passkey_over_its_digest(studio: Opened) -> None:
    world, visitor = studio.world, studio.visitor("approver")
    mine = studio.passkeys["approver"]
    session = world.session(LIMITS)
    for act, state in (("grant", "granted"), ("deny", "denied")):
        approval = asked_for(world, session, 60 if act == "grant" else 61)
        page = f"/studio/approvals/{approval.id}"
        assert approval.digest in visitor.get(page).text
        other = "deny" if act == "grant" else "grant"
        form = visitor.form(page, f"{page}/{act}")
        crossed = visitor.form(page, f"{page}/{other}")
        form_action, form.action = form.action, crossed.action
        assert visitor.answer(form, mine).status_code == 401
        form.action = form_action
        assert visitor.answer(form, mine).status_code == 303
        told = visitor.get(f"{page}.json").json()["approval"]
        assert told["state"] == state
        assert f'state-{state}"' in visitor.get(page).text
    by = studio.persons["approver"].key_id
    found, _ = world.engine.approvals.page(
        WORKSPACE, studio.clock(), session_id=session.id, state="granted", offset=0, limit=9
    )
    assert [given.key_id for given in found[0].grants] == [by]


def test_somebody_is_invited_by_passkey_to_what_was_shown(studio: Opened) -> None:
    visitor, mine = studio.visitor("admin"), studio.passkeys["admin"]
    page = "/studio/people?name=Grace&role=auditor"
    form = visitor.form(page, "/studio/people")
    form.fields["role"] = "admin"
    assert visitor.answer(form, mine).status_code == 401
    answer = visitor.answer(visitor.form(page, "/studio/people"), mine)
    token = re.search(r"/studio/set-up#(zfi_setup_[0-9a-f]{64})", answer.text)
    assert token is not None
    assert studio.people.in_setup(token[1], studio.clock()).role == "auditor"
    assert token[1] not in visitor.get("/studio/people").text


def _state(studio: Opened, places: dict[str, str]) -> str:
    return studio.world.engine.sessions.get(WORKSPACE, places["session_id"]).state
