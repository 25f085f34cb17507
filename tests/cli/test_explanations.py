"""`tallystick explain` and `backtest`: what a person reads, and what a program gets."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.policy.rules import RULES
from tallystick import ApiError, Client
from tests.cli.processes import ANSI, COMMAND, Done, Serving, called, environment, one_line
from tests.cli.terminal import on_a_terminal


class Story:
    """Two sessions of $100 a day: one spent 40.10 and was denied 60, one spent 50.20."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server = Serving(directory / "data")
        assert self.server.first_key is not None
        self.known = {"url": self.server.url, "api_key": self.server.first_key}
        with Client(self.server.url, api_key=self.server.first_key) as client:
            self.first, self.second = (
                client.create_session(
                    agent_id="shopper",
                    user_wallet="0x" + "1" * 40,
                    limits={"max_per_day": "100"},
                    conditions=["at most 5 payments per hour"],
                    duration_hours=48,
                )
                for _ in range(2)
            )
            token = self.first["session_token"]
            self.paid = client.pay("40.10", merchant="[b]x[/]", session_token=token)
            with pytest.raises(ApiError) as denied:
                client.pay("60", merchant="books", session_token=token)
            self.denied = denied.value.body
            other = self.second["session_token"]
            self.spent = client.pay("50.20", merchant="books", session_token=other)

    def __call__(self, *arguments: str | Path, **instead: str) -> Done:
        """Call a command as the operator."""
        return called(*arguments, cwd=self.directory, **(self.known | instead))

    def draft(self, text: str) -> Path:
        path = self.directory / "new.json"
        path.write_text(text)
        return path


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A server on which all of this happened."""
    found = Story(tmp_path_factory.mktemp("explanations"))
    yield found
    assert found.server.stop() == (0, "")


def test_a_denial_is_explained(story: Story) -> None:
    done = story("explain", story.denied["id"])
    assert (done.returncode, done.stderr) == (0, "")
    first, *_ = done.stdout.splitlines()
    assert first.split() == ["LIMIT_EXCEEDED", *story.denied["decision"]["reason"].split()]
    for part in (
        *(story.denied["id"], story.first["id"], "$60.00 to books", "the same, byte for byte"),
        "allowed from",
        "✗ per_day",
        *(rule.name for rule in RULES),
    ):
        assert part in done.stdout
    lines = {line.split("  ")[0].strip(): line.split() for line in done.stdout.splitlines()}
    assert lines["per_day"][-3:] == ["$40.10", "$59.90", "$100.00"]
    assert lines["at most 5 payments per hour"][-3:] == ["1", "4", "5"]


def test_an_allowed_payment_is_explained(story: Story) -> None:
    done = story("explain", story.paid["id"])
    assert done.returncode == 0
    assert done.stdout.startswith("ALLOWED ")
    assert "to [b]x[/] at" in done.stdout
    assert "✗" not in done.stdout


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_on_a_screen(story: Story, columns: int) -> None:
    command = [COMMAND, "explain", story.denied["id"]]
    status, seen = on_a_terminal(command, columns, environment(**story.known))
    assert status == 0
    lines = [line.rstrip() for line in ANSI.sub("", seen).splitlines()]
    assert max(map(len, lines)) <= columns
    assert len(lines) <= 24
    whole = "".join(line.strip() for line in lines).replace(" ", "")
    for rule in RULES:
        assert rule.name in whole


def test_the_holder_may_ask_and_a_program_gets_json(story: Story) -> None:
    holder = {"api_key": "", "session_token": story.first["session_token"]}
    found = json.loads(story("explain", story.denied["id"], "--json", **holder).stdout)
    assert (found["matches"], found["recorded"]) == (True, story.denied["decision"])
    assert len(found["rules"]) == len(RULES)
    assert one_line(story("explain", story.spent["id"], **holder), 1).startswith(
        "payment_not_found: "
    )


def test_a_record_that_was_changed_is_told_loudly(tmp_path: Path) -> None:
    server = Serving(tmp_path / "data")
    known = {"url": server.url, "api_key": str(server.first_key)}
    with Client(server.url, api_key=server.first_key) as client:
        session = client.create_session(agent_id="a", user_wallet="w")
        paid = client.pay("4", session_token=session["session_token"])
    with closing(sqlite3.connect(tmp_path / "data" / "ledger.sqlite3")) as database, database:
        changed = "UPDATE records SET body = CAST(replace(CAST(body AS TEXT), ?, ?) AS BLOB)"
        database.execute(changed, ('"requested":4000000', '"requested":3000000'))
    done = called("explain", paid["id"], **known)
    assert (done.returncode, done.stderr) == (1, "")
    first, *rest = done.stdout.splitlines()
    assert first.startswith(" DIFFERS  record 1 (payment.decided): the policy decides ALLOWED")
    assert "DIFFERS: ALLOWED (all)" in "\n".join(rest)
    told = json.loads(called("explain", paid["id"], "--json", **known).stdout)
    assert told["matches"] is False
    assert server.stop() == (0, "")


def test_a_draft_is_tried_on_one_session(story: Story) -> None:
    draft = story.draft('{"limits": {"max_per_day": 100.1, "max_per_week": null}}')
    done = story("backtest", "--policy", draft, "--session", story.first["id"])
    assert (done.returncode, done.stderr) == (0, "")
    recorded, drafted, above, said, _, heading, line = done.stdout.splitlines()
    assert above.startswith("What only the draft allows is counted without budgets above")
    assert recorded.split() == ["recorded", "1", "of", "2", "allowed,", "$40.10"]
    assert drafted.split() == ["drafted", "2", "of", "2", "allowed,", "$100.10"]
    assert said == f"1 difference, the first is {story.denied['id']}"
    assert heading.split() == ["PAYMENT", "AMOUNT", "RECORDED", "DRAFTED", "MADE"]
    facts = [story.denied["id"], "$60.00", "LIMIT_EXCEEDED", "(per_day)", "ALLOWED", "(all)"]
    assert line.split()[:6] == facts


def test_a_draft_is_tried_on_all_sessions(story: Story) -> None:
    draft = story.draft('{"limits": {"max_per_transaction": "50"}}')
    found = json.loads(story("backtest", "--policy", draft, "--all", "--json").stdout)
    assert found["first_difference"]["payment_id"] == story.denied["id"]
    differences = {each["session_id"]: each["differences"] for each in found["sessions"]}
    assert [each["payment_id"] for each in differences.pop(story.second["id"])] == [
        story.spent["id"]
    ]
    assert [each["payment_id"] for each in differences.pop(story.first["id"])] == [
        story.denied["id"]
    ]
    assert differences == {}
    said = story("backtest", "--policy", draft, "--all").stdout.splitlines()
    assert said[0].split() == ["recorded", "2", "of", "3", "allowed,", "$90.30"]
    assert said[2] == f"2 differences, the first is {story.denied['id']}"
    assert [line.split()[0] for line in said[5:]] == [story.denied["id"], story.spent["id"]]


def test_the_policy_in_force_has_no_differences(story: Story) -> None:
    done = story("backtest", "--policy", story.draft("{}"), "--all")
    assert done.stdout.splitlines()[2:] == ["no differences"]
    every = story("backtest", "--policy", story.draft("{}"), "--all", "--json")
    assert json.loads(every.stdout)["first_difference"] is None
    one = story("backtest", "--policy", story.draft("{}"), "--session", story.first["id"], "--json")
    assert json.loads(one.stdout)["first_difference"] is None


@pytest.mark.parametrize(
    "text", ["", "[]", "1", "{", '{"limits": NaN}', "[" * 100_000, '{"limits": 1e5}']
)
def test_a_draft_that_is_none_is_one_line(story: Story, text: str) -> None:
    done = story("backtest", "--policy", story.draft(text), "--all")
    said = one_line(done, 1 if "limits" in text else 2)
    assert "limits" in said or said.startswith("invalid_parameter: --policy: ")
    assert done.stdout == ""


def test_one_session_or_all_and_a_file_that_is_there(story: Story) -> None:
    draft = story.draft("{}")
    for which in ((), ("--all", "--session", story.first["id"])):
        said = one_line(story("backtest", "--policy", draft, *which), 2)
        assert said.startswith("invalid_parameter: --session: ")
    said = one_line(story("backtest", "--policy", "absent.json", "--all"), 2)
    assert said.startswith("invalid_parameter: --policy: absent.json: No such file")
    said = one_line(story("backtest", "--policy", draft, "--session", "sess_none"), 1)
    assert said.startswith("session_not_found: ")
    wrong: dict[str, Any] = {"conditions": ["sometimes"]}
    done = story("backtest", "--policy", story.draft(json.dumps(wrong)), "--all")
    assert "conditions[0]: " in one_line(done, 1)
