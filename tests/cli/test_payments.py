"""`tallystick payments`: what was asked, what was decided, what became of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tallystick import ApiError, Client
from tests.cli.processes import ANSI, COMMAND, Done, Serving, called, environment, one_line
from tests.cli.terminal import on_a_terminal

PAYMENTS = 105  # more than one page of the server's


class Story:
    """Two sessions: one paid once, was denied, and holds; the other paid a hundred times."""

    def __init__(self, directory: Path) -> None:
        self.server = Serving(directory / "data")
        assert self.server.first_key is not None
        self.known = {"url": self.server.url, "api_key": self.server.first_key}
        with Client(self.server.url, api_key=self.server.first_key) as client:
            self.first, self.second = (
                client.create_session(
                    agent_id="shopper",
                    user_wallet="0x" + "1" * 40,
                    limits={"max_per_day": "100"},
                )
                for _ in range(2)
            )
            token = self.first["session_token"]
            paid = client.pay("12.50", merchant="books", session_token=token)
            with pytest.raises(ApiError) as denied:
                client.pay("99", session_token=token)
            held = client.pay("3.000001", session_token=token, hold=True, description="[b]x[/]")
            self.ids = [held["id"], denied.value.body["id"], paid["id"]]
            for _ in range(PAYMENTS):
                client.pay("0.01", session_token=self.second["session_token"])

    def __call__(self, *arguments: str) -> Done:
        """Call a command as the operator."""
        return called(*arguments, **self.known)

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """What `payments list --json` prints."""
        done = self("payments", "list", "--json", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A server on which all of this happened."""
    found = Story(tmp_path_factory.mktemp("payments"))
    yield found
    assert found.server.stop() == (0, "")


def test_the_newest_twenty_come_first(story: Story) -> None:
    found = story.listed()
    assert len(found) == 20
    numbers = [int(payment["id"].rpartition("_")[2]) for payment in found]
    assert numbers == sorted(numbers, reverse=True)
    assert {payment["session_id"] for payment in found} == {story.second["id"]}


@pytest.mark.parametrize("limit", [1, 3, 100, 101, 108, 500])
def test_a_limit_may_be_more_than_a_page(story: Story, limit: int) -> None:
    found = story.listed("--limit", str(limit))
    assert len({payment["id"] for payment in found}) == min(limit, PAYMENTS + 3) == len(found)


def test_those_of_one_session_however_far_back(story: Story) -> None:
    assert [p["id"] for p in story.listed("--session", story.first["id"])] == story.ids
    assert [p["id"] for p in story.listed("--session", story.first["id"], "--limit", "2")] == (
        story.ids[:2]
    )
    done = story("payments", "list", "--json", "--session", "sess_of_nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("session_not_found: ")


def test_a_line_for_each(story: Story) -> None:
    done = story("payments", "list", "--session", story.first["id"])
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == [
        *("STATE", "ID", "AMOUNT", "CAPTURED", "MERCHANT", "DECISION", "MADE")
    ]
    held, denied, paid = (line.split() for line in lines)
    assert held[:5] == ["HELD", story.ids[0], "$3.000001", "$0.00", "ALLOWED"]
    assert denied[:5] == ["DENIED", story.ids[1], "$99.00", "$0.00", "LIMIT_EXCEEDED"]
    assert paid[:6] == ["CAPTURED", story.ids[2], "$12.50", "$12.50", "books", "ALLOWED"]


def test_a_terminal_of_80_columns_cuts_nothing_off(story: Story) -> None:
    command = [COMMAND, "payments", "list", "--session", story.first["id"]]
    status, seen = on_a_terminal(command, 80, environment(**story.known))
    assert status == 0
    lines = [line.rstrip() for line in ANSI.sub("", seen).splitlines()]
    assert max(map(len, lines)) <= 80
    whole = "".join(lines)
    for part in (*story.ids, "LIMIT_EXCEEDED", "$3.000001", "books"):
        assert part in whole


def test_get_shows_one(story: Story) -> None:
    done = story("payments", "get", story.ids[1])
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("  ", 1) for line in done.stdout.splitlines()]
    shown = {name: value.strip() for name, value in lines}
    assert (shown["id"], shown["session"]) == (story.ids[1], story.first["id"])
    assert (shown["state"], shown["decision"]) == ("denied", "LIMIT_EXCEEDED")
    assert (shown["amount"], shown["left today"]) == ("$99.00", "$84.499999")
    assert "[b]x[/]" in story("payments", "get", story.ids[0]).stdout
    found = json.loads(story("payments", "get", story.ids[0], "--json").stdout)
    assert (found["id"], found["state"], found["amount_usd"]) == (story.ids[0], "held", 3.000001)


def test_what_is_not_there_is_one_line(story: Story) -> None:
    for unknown in ("pay_no", "../payments", ""):
        assert "not_found: " in one_line(story("payments", "get", unknown), 1)
    assert one_line(story("payments", "list", "--limit", "0"), 2).startswith("usage: ")
