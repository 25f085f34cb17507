"""What is particular to stores in Valkey: its own time, and what it keeps of a payer."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.errors import Unavailable
from engine.storage.payer import Payer
from engine.storage.session import Storage
from engine.storage.valkey import ValkeyStore
from tests.servers import ValkeyServer
from tests.storage.stores import new_payer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def storage(valkey_url: str) -> AsyncIterator[Storage]:
    """A store by the server's clock, on an empty server."""
    storage = Storage(ValkeyStore(valkey_url, namespace="here"))
    yield storage
    await storage.close()


@pytest.fixture
def server(valkey_server: ValkeyServer) -> Any:
    """A client that sees what the store keeps."""
    with valkey_server.client() as client:
        yield client


def names(payer: Payer) -> list[str]:
    parts = ("values", "index", "expiries", "lives", "bytes")
    return [f"here:{{{payer.account}}}:{part}" for part in parts]


async def test_the_servers_time_decides(storage: Storage, server: Any) -> None:
    session = storage.session(new_payer())
    await session.set("short", "1", ttl_ms=1)
    await session.set("long", "2", ttl_ms=3_600_000)
    before = server.time()
    while server.time() <= (before[0], before[1] + 2_000) and server.time()[0] == before[0]:
        pass
    assert await session.get("short") is None
    assert await session.delete("short") is False
    assert (await session.list()).entries == {"long": "2"}


async def test_a_payer_whose_entries_all_end_leaves_nothing(storage: Storage, server: Any) -> None:
    payer = new_payer()
    session = storage.session(payer)
    await session.set("a", "1", ttl_ms=60_000)
    await session.set("b", "1", ttl_ms=3_600_000)
    for name in names(payer):
        assert 60_000 < server.pttl(name) <= 3_600_000, "as long as the last of them"
    await session.set("ever", "1")
    assert {server.pttl(name) for name in names(payer)} == {-1}
    await session.delete("ever")
    for name in names(payer):
        assert 60_000 < server.pttl(name) <= 3_600_000
    await session.delete_many(["a", "b"])
    assert server.exists(*names(payer)) == 0


async def test_what_is_got_lives_on_in_the_server_too(storage: Storage, server: Any) -> None:
    payer = new_payer()
    session = storage.session(payer)
    await session.set("a", "1", ttl_ms=3_600_000)
    for name in names(payer):
        server.pexpire(name, 10_000)
    assert await session.get("a") == "1"
    for name in names(payer):
        assert server.pttl(name) > 10_000


async def test_a_payer_is_all_of_one_slot_and_of_one_namespace(
    storage: Storage, server: Any, valkey_url: str
) -> None:
    payer = new_payer()
    await storage.session(payer).set("a", "1", ttl_ms=60_000)
    assert sorted(name.decode() for name in server.keys("*")) == sorted(names(payer))
    assert len({server.execute_command("CLUSTER KEYSLOT", name) for name in names(payer)}) == 1
    other = Storage(ValkeyStore(valkey_url, namespace="there"))
    assert await other.session(payer).get("a") is None
    await other.close()


async def test_a_server_that_forgot_the_script_is_told_again(storage: Storage, server: Any) -> None:
    session = storage.session(new_payer())
    await session.set("a", "1")
    server.script_flush()
    assert await session.get("a") == "1"


async def test_a_server_that_is_gone_says_so_and_comes_back() -> None:
    with ValkeyServer() as server:
        storage = Storage(ValkeyStore(server.url))
        session = storage.session(new_payer())
        await session.set("a", "1")
        cursor = (await session.list(limit=0)).cursor
        assert cursor is None
        server.kill()
        for ask in (session.get("a"), session.set("a", "2"), storage.cursor_key()):
            with pytest.raises(Unavailable):
                await ask
        server.start()
        assert await session.get("a") == "1"
        await storage.close()


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^ttl_ms must be >= 0$"):
        ValkeyStore("valkey://127.0.0.1:1", ttl_ms=-1)
    with pytest.raises(ValueError, match="one of the following schemes"):
        ValkeyStore("http://127.0.0.1:1")
