"""Pages that renew themselves hear of what happens, for as long as somebody is signed in."""

import json
import re

import httpx
import sqlalchemy as sa

from api.server import Server
from engine.db.passkeys import SignIn
from engine.db.tables import table
from engine.webhooks.feed import POLL_MS
from engine.workspaces.people import IDLE_MS, SEEN_EVERY_MS
from tests.rest.test_events import blocks
from tests.studio.conftest import Opened
from tests.studio.visitor import COOKIE

LIVE = "/studio/live"


def test_a_page_hears_what_happens_until_its_person_is_revoked(studio: Opened) -> None:
    world, admin = studio.world, studio.persons["admin"]
    studio.join("viewer", studio.people.invite(admin, "viewer", "Listener"), "listener")
    visitor = studio.visitor("listener")
    with Server(world.engine, "127.0.0.1", 0) as server, httpx.Client(timeout=10) as http:
        headers = {"Host": f"localhost:{server.port}"}
        assert http.get(server.url + LIVE, headers=headers).status_code == 401
        headers["Cookie"] = f"{COOKIE}={visitor.cookie}"
        beyond = http.get(server.url + LIVE, headers={**headers, "Last-Event-ID": "9" * 12})
        assert beyond.status_code == 422
        seen_ms = _seen_ms(studio)
        studio.clock.now_ms += 2 * SEEN_EVERY_MS
        world.engine.lead.sequence()
        with http.stream("GET", server.url + LIVE, headers=headers) as answer:
            said = blocks(answer.iter_lines())
            assert next(said)["retry"] == "2000"
            assert _seen_ms(studio) == seen_ms
            world.session(label="heard")
            world.engine.lead.sequence()
            studio.clock.now_ms += POLL_MS
            told = json.loads(next(block["data"] for block in said if "data" in block))
            assert told["event"] == "agent.session.created"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            studio.people.revoke(admin, studio.persons["listener"].key_id)
            world.session(label="not heard")
            world.engine.lead.sequence()
            studio.clock.now_ms += POLL_MS
            assert [block for block in said if "data" in block] == []


def _seen_ms(studio: Opened) -> int:
    key_id = studio.persons["listener"].key_id
    rows = table(SignIn)
    studio.world.engine.writer.call(lambda _: None)  # behind what was submitted
    with studio.world.engine.database.reading() as connection:
        query = sa.select(rows.c.seen_ms).where(rows.c.key_id == key_id)
        return int(connection.execute(query).scalar_one())


def test_a_page_that_renews_itself_keeps_nobody_signed_in(studio: Opened) -> None:
    visitor = studio.visitor("viewer")
    for passed, status in ((IDLE_MS - 60_000, 200), (60_000, 303)):
        studio.clock.now_ms += passed
        page = visitor.get("/studio/", headers={"Tallystick-Live": "1"})
        assert page.status_code == status


def test_what_happened_while_a_page_was_on_its_way_is_heard(studio: Opened) -> None:
    world, visitor = studio.world, studio.visitor("viewer")
    world.engine.lead.sequence()
    page = visitor.get("/studio/")
    [live] = re.findall(r'data-live="(/studio/live\?after=\d+)"', page.text)
    world.session(label="meanwhile")
    world.engine.lead.sequence()
    with Server(world.engine, "127.0.0.1", 0) as server, httpx.Client(timeout=10) as http:
        headers = {"Host": f"localhost:{server.port}", "Cookie": f"{COOKIE}={visitor.cookie}"}
        with http.stream("GET", server.url + live, headers=headers) as answer:
            said = blocks(answer.iter_lines())
            told = json.loads(next(block["data"] for block in said if "data" in block))
            assert told["event"] == "agent.session.created"
        beyond = http.get(f"{server.url}{LIVE}?after=999999", headers=headers)
        assert beyond.status_code == 422
