"""A Studio that the tests of a file share, with a person of each role."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from fastapi import FastAPI
from webauthn.helpers import bytes_to_base64url

from api.server import server_app
from engine.clock import ManualClock
from engine.workspaces.people import ROLES, Credential, People, Person
from tests.studio.authenticator import Authenticator
from tests.studio.visitor import Visitor
from tests.world import World

NOW_MS = 1_900_000_000_000


@dataclass
class Opened:
    """A world, its application and its people."""

    world: World
    clock: ManualClock
    app: FastAPI
    people: People
    persons: dict[str, Person] = field(default_factory=dict)
    passkeys: dict[str, Authenticator] = field(default_factory=dict)

    def join(self, role: str, token: str, name: str | None = None) -> None:
        """Somebody sets up a passkey."""
        passkey = Authenticator(name or role, backed_up=role == "auditor")
        stored = Credential(
            bytes_to_base64url(passkey.raw_id), "", passkey.public_key, role == "auditor", 0
        )
        person = self.people.set_up(token, stored)
        passkey.handle = person.key_id.encode()
        self.persons[name or role], self.passkeys[name or role] = person, passkey

    def visitor(self, role: str | None = None) -> Visitor:
        """A browser, in which somebody is signed in."""
        made = Visitor(self.app)
        if role is not None:
            made.sign_in(self.passkeys[role])
        return made


@pytest.fixture(scope="package")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Shared: leave it usable."""
    clock = ManualClock(NOW_MS)
    world = World(tmp_path_factory.mktemp("studio") / "data", clock)
    people = People(world.engine.database, world.engine.writer)
    opened = Opened(world, clock, server_app(world.engine), people)
    opened.join("admin", str(people.first()))
    for role in ROLES[1:]:
        opened.join(role, people.invite(opened.persons["admin"], role, role.title()))
    yield opened
    world.engine.close()
