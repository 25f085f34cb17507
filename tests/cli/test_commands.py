"""Every command against a real server: what it prints, where, and its exit status."""

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from tests.cli.conftest import Shell
from tests.cli.processes import ANSI, COMMAND, called, environment, one_line, tallystick
from tests.cli.terminal import on_a_terminal


def create(shell: Shell, *options: str) -> dict[str, Any]:
    """A session, as JSON."""
    wallet = ("--agent-id", "shopper", "--wallet", shell.owner.address)
    done = shell("sessions", "create", *wallet, *options, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    session: dict[str, Any] = json.loads(done.stdout)
    return session


@pytest.fixture(scope="module")
def session(shell: Shell) -> dict[str, Any]:
    """A session that its owner has signed, with $100 a day and nobody but books."""
    limits = ("--max-per-day", "100", "--max-per-transaction", "60", "--merchant", "books")
    return create(shell, *limits, "--mint-pkp", "--owner-key-file", str(shell.key_file))


def pay(shell: Shell, session: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    return shell("pay", *arguments, session_token=session["session_token"])


def test_create_signs_with_the_owners_key_and_registers(session: dict[str, Any]) -> None:
    assert (session["status"], session["consent"]) == ("active", "eip712")
    assert re.fullmatch(r"0x[0-9a-f]{40}", session["pkp_address"])


def test_create_shows_the_session_and_its_token_once(shell: Shell) -> None:
    done = shell(
        *("sessions", "create", "--agent-id", "shopper", "--wallet", "a-wallet-of-another-kind"),
        *("--max-per-day", "none", "--duration", "1.5", "--label", "[bold]lunch[/]"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    token = re.search(r"session token \(shown once\): (zai_session_\w+)", done.stdout)
    assert token is not None
    shown = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert "[bold]lunch[/]" in shown["label"]
    assert "unlimited" in shown["per 24 hours"]
    session_id = shown["id"].split()[-1]
    again = shell("sessions", "get", session_id)
    assert (again.returncode, again.stdout.splitlines()) == (0, done.stdout.splitlines()[:-2])
    assert token[1] not in shell("sessions", "list", "--json").stdout


def test_get_leaves_no_value_out(shell: Shell) -> None:
    lines = shell("sessions", "get", create(shell)["id"]).stdout.splitlines()
    told = dict(re.split(" {2,}", line.strip(), maxsplit=1) for line in lines)  # else an error
    assert told["label"] == "none"


def test_get_answers_with_json_too(shell: Shell, session: dict[str, Any]) -> None:
    done = shell("sessions", "get", session["id"], "--json")
    found = json.loads(done.stdout)
    assert found["id"] == session["id"]
    assert "session_token" not in found


def test_list_has_a_line_for_each_session(shell: Shell, session: dict[str, Any]) -> None:
    ended = create(shell, "--label", "a label")
    assert shell("sessions", "revoke", ended["id"], "--yes").returncode == 0
    done = shell.process("sessions", "list")
    assert (done.returncode, done.stderr) == (0, "")
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["STATUS", "ID", "AGENT", "LABEL", "REMAINING", "TODAY", "EXPIRES"]
    ids = [entry["id"] for entry in json.loads(shell("sessions", "list", "--json").stdout)]
    assert len(lines) == len(ids)
    by_id = dict(zip(ids, lines, strict=True))
    assert by_id[session["id"]].startswith(f"● ACTIVE   {session['id']}  shopper")
    assert by_id[ended["id"]].startswith(f"○ REVOKED  {ended['id']}  shopper")
    assert "a label" in by_id[ended["id"]]
    assert re.search(r"\$5,000\.00 +\d{4}-\d\d-\d\d \d\d:\d\dZ$", by_id[ended["id"]].rstrip())


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_on_a_terminal_of_any_width_nothing_is_cut_off(
    shell: Shell, session: dict[str, Any], columns: int
) -> None:
    create(shell, "--label", "a label that takes a good part of a line", "--merchant", "m" * 90)
    known = environment(url=shell.server.url, api_key=shell.key)
    status, seen = on_a_terminal([COMMAND, "sessions", "list"], columns, known)
    assert status == 0
    lines = [line.rstrip() for line in ANSI.sub("", seen).splitlines()]
    assert max(map(len, lines)) <= columns
    whole = "".join(line.strip() for line in lines).replace(" ", "")
    for entry in json.loads(shell("sessions", "list", "--json").stdout):
        for field in ("id", "agent_id", "label"):
            assert (entry[field] or "").replace(" ", "") in whole
    assert "…" not in whole


def test_revoke_asks_first(shell: Shell) -> None:
    created = create(shell)
    for given, status, line in (
        ("n\n", 1, "aborted: nothing was done\n"),
        ("\n", 1, "aborted: nothing was done\n"),
        ("", 2, "invalid_parameter: --yes: is needed where nobody can be asked\n"),
    ):
        done = shell("sessions", "revoke", created["id"], given=given)
        assert (done.returncode, done.stderr) == (status, line)
    assert json.loads(shell("sessions", "get", created["id"], "--json").stdout)["is_active"]
    done = shell("sessions", "revoke", created["id"], given="y\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith(f"{created['id']} is revoked")
    found = json.loads(shell("sessions", "get", created["id"], "--json").stdout)
    assert found["status"] == "revoked"


def test_pay_hold_capture_and_void(shell: Shell) -> None:
    created = create(shell, "--max-per-day", "100")
    paid = pay(shell, created, "12.50", "--merchant", "books")
    assert (paid.returncode, paid.stderr) == (0, "")
    assert "captured: $12.50 of $12.50 captured, $87.50 left today" in paid.stdout
    held = json.loads(pay(shell, created, "40", "--hold", "--json").stdout)
    assert (held["state"], held["remaining_today"]) == ("held", 47.5)
    captured = json.loads(shell("capture", held["id"], "35.000001", "--json").stdout)
    assert (captured["state"], captured["captured_usd"]) == ("captured", 35.000001)
    other = json.loads(pay(shell, created, "1", "--hold", "--json").stdout)
    voided = shell("void", other["id"])
    assert (voided.returncode, voided.stdout.split()[:2]) == (0, [other["id"], "voided:"])
    found = json.loads(shell("sessions", "get", created["id"], "--json").stdout)
    assert found["remaining_today"] == 52.499999


def test_a_limit_of_zero_lets_nothing_through(shell: Shell) -> None:
    for option, code in (
        *((f"--max-per-{span}", "LIMIT_EXCEEDED") for span in ("transaction", "day", "week")),
        ("--max-per-month", "LIMIT_EXCEEDED"),
        ("--require-approval-above", "APPROVAL_REQUIRED"),
    ):
        done = pay(shell, create(shell, option, "0"), "0.000001")
        assert one_line(done, 6).startswith(f"{code}: ")


def test_the_same_key_pays_once(shell: Shell) -> None:
    created = create(shell)
    answers = [pay(shell, created, "5", "--key", "one", "--json").stdout for _ in range(2)]
    assert answers[0] == answers[1]
    assert one_line(pay(shell, created, "6", "--key", "one"), 1).startswith(
        "idempotency_key_reused"
    )


def test_a_denial_is_one_line_and_status_6(shell: Shell, session: dict[str, Any]) -> None:
    for arguments, code in (
        (("61", "--merchant", "books"), "LIMIT_EXCEEDED"),
        (("1", "--merchant", "casino"), "MERCHANT_NOT_ALLOWED"),
        (("1", "--merchant", "books", "--token", "EURC"), "TOKEN_NOT_ALLOWED"),
    ):
        done = pay(shell, session, *arguments)
        assert one_line(done, 6).startswith(f"{code}: ")
        assert done.stdout == ""


def test_from_the_anchor_to_the_verdict(shell: Shell, session: dict[str, Any]) -> None:
    assert pay(shell, session, "3", "--merchant", "books").returncode == 0
    anchored = shell.process("anchor")
    assert (anchored.returncode, anchored.stderr) == (0, "")
    assert re.match(r"final: size \d+, root 0x[0-9a-f]{64}, tx 0x[0-9a-f]{64}", anchored.stdout)
    written = shell.process("evidence", session["id"], "-o", "proof.json")
    assert (written.returncode, written.stderr) == (0, "")
    file = shell.directory / "proof.json"
    assert written.stdout == f"proof.json: {file.stat().st_size} bytes\n"
    chain = ("--rpc", shell.server.rpc, "--registry", shell.server.registry)
    verified = tallystick("verify", file, *chain)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert verified.stdout.splitlines()[-1] == "VERIFIED"
    file.write_bytes(file.read_bytes().replace(b"3000000", b"2000000"))
    tampered = tallystick("verify", file, *chain)
    assert tampered.returncode == 1
    assert re.search(r"^ *\d+  \w+ +not checked: it rests on ", tampered.stdout, re.MULTILINE)
    assert "not checked not checked" not in tampered.stdout


def test_evidence_without_what_is_withheld(shell: Shell, session: dict[str, Any]) -> None:
    assert pay(shell, session, "3", "--merchant", "unheard-of").returncode == 6
    assert shell("anchor").returncode == 0
    done = shell("evidence", session["id"], "-o", "shown.json", "--withhold", "merchant, label")
    assert (done.returncode, done.stderr) == (0, "")
    file = shell.directory / "shown.json"
    assert b"unheard-of" not in file.read_bytes()
    assert json.loads(file.read_bytes())["withheld"] == ["label", "merchant"]
    chain = ("--rpc", shell.server.rpc, "--registry", shell.server.registry)
    verified = tallystick("verify", file, *chain)
    assert verified.stdout.splitlines()[-1] == "VERIFIED"
    assert "; withheld: label, merchant" in verified.stdout
    line = one_line(shell("evidence", session["id"], "--withhold", "merchant,amount"), 2)
    names = "label, merchant, user_wallet"
    assert line == f"invalid_parameter: --withhold: 'amount' is none of: {names}"


# What goes wrong


USAGE = {
    "no such command": ("sell",),
    "no such option": ("pay", "1", "--quickly"),
    "an argument is missing": ("pay",),
    "one too many": ("void", "a", "b"),
    "an option is missing": ("sessions", "create", "--agent-id", "x"),
    "a value is missing": ("sessions", "create", "--agent-id"),
    "a number is not one": ("serve", "--port", "high"),
    "no command of the group": ("sessions", "buy"),
    "no verify without a chain": ("verify", "evidence.json"),
    "a file is missing": ("verify", "no.json", "--rpc", "http://x", "--registry", "0x" + "1" * 40),
    "not a registry": ("verify", "no.json", "--rpc", "http://x", "--registry", "0x1"),
    "not an endpoint": ("verify", "/dev/null", "--rpc", "x", "--registry", "0x" + "1" * 40),
    "no key file": (
        *("sessions", "create", "--agent-id", "x", "--wallet", "0x" + "1" * 40),
        *("--owner-key-file", "no.key"),
    ),
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE.keys())
def test_wrong_usage_is_one_line_and_status_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = called(*arguments, cwd=tmp_path)
    line = one_line(done, 2)
    assert line.startswith(("usage: ", "invalid_parameter: "))
    assert done.stdout == ""


def test_wrong_usage_is_no_more_than_a_line_in_a_process_too(tmp_path: Path) -> None:
    done = tallystick("pay", "1", "--quickly", cwd=tmp_path)
    line = one_line(done, 2)
    assert line == "usage: No such option: --quickly (see tallystick pay --help)"


def test_a_group_without_a_command_shows_its_help(shell: Shell) -> None:
    for arguments in ((), ("sessions",)):
        done = shell(*arguments)
        assert done.returncode == 2
        assert "Commands" in done.stdout + done.stderr
        assert "usage: " not in done.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def test_a_server_that_is_not_there_is_one_line_and_status_1() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for arguments in (("anchor",), ("sessions", "list"), ("pay", "1"), ("void", "pay_1")):
        line = one_line(called(*arguments, url=url, api_key="zfi_x", session_token="zai_x"), 1)
        assert line.startswith(f"unreachable: {url}: ")
        assert line.endswith("is `tallystick serve` running? TALLYSTICK_URL or --url names it")


def test_an_address_that_is_none_or_another_servers_is_one_line(shell: Shell) -> None:
    assert one_line(shell("anchor", "--url", "http://127.0.0.1:x"), 2).startswith(
        "invalid_parameter: --url: "
    )
    for url in ("127.0.0.1:8402", "localhost:8402", "ftp://127.0.0.1", "http:127.0.0.1"):
        said = f"invalid_parameter: --url: http:// or https:// is missing in front of {url!r}"
        for done in (shell("anchor", "--url", url), shell("anchor", url=url)):
            assert one_line(done, 2) == said
        assert one_line(shell("mcp", "--url", url, session_token="zai_x"), 2) == said
    line = one_line(shell("sessions", "list", "--url", shell.server.rpc), 1)
    assert re.fullmatch(
        rf"http_error: {shell.server.rpc}: status (405|501): what answered there is no Tallystick "
        r"server: TALLYSTICK_URL or --url names one",
        line,
    )


def test_a_wrong_key_is_one_line_and_status_1(shell: Shell) -> None:
    for key in ("zfi_test_" + "0" * 64, "x", "with a space", "line\nbreak"):
        line = one_line(shell("sessions", "list", api_key=key), 1)
        assert key not in line
        assert repr(key)[1:-1] not in line or len(key) == 1
    assert one_line(shell("pay", "1", session_token="zai_session_no"), 1).startswith(
        "invalid_session_token: "
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("sessions", "get", "sess_no"), "session_not_found"),
        (("sessions", "get", "../../agents"), "not_found"),
        (("sessions", "revoke", "-y", "sess_no"), "session_not_found"),
        (("evidence", "sess_no"), "session_not_found"),
        (("capture", "pay_no"), "payment_not_found"),
        (("void", "pay/../no"), "not_found"),
        (("capture", "pay_no", "a lot"), "invalid_amount"),
    ],
)
def test_what_the_server_refuses_is_one_line_and_status_1(
    shell: Shell, arguments: tuple[str, ...], code: str
) -> None:
    assert one_line(shell(*arguments), 1).startswith(f"{code}: ")


@pytest.mark.parametrize("amount", ["0", "-1", "1e3", "0.0000001", "NaN", "\u0661", "1,000", ""])
def test_an_amount_that_is_none_is_refused(
    shell: Shell, session: dict[str, Any], amount: str
) -> None:
    done = shell("pay", "--merchant", "books", "--", amount, session_token=session["session_token"])
    assert one_line(done, 1).startswith("invalid_amount: AMOUNT: ")


def test_a_key_file_is_read_before_anything_is_asked(shell: Shell) -> None:
    """Else a session would be left behind that nobody can sign."""
    before = len(json.loads(shell("sessions", "list", "--json").stdout))
    secret = "0x" + "5e" * 31
    bad = shell.directory / "bad.key"
    bad.write_text(secret)
    command = ("sessions", "create", "--agent-id", "x", "--wallet", shell.owner.address)
    line = one_line(shell(*command, "--owner-key-file", bad), 2)
    assert line.endswith("does not hold a private key")
    assert secret[2:] not in line
    other = Account.create()
    bad.write_text(bytes(other.key).hex())
    assert other.address in one_line(shell(*command, "--owner-key-file", bad), 2)
    assert len(json.loads(shell("sessions", "list", "--json").stdout)) == before


def test_evidence_that_cannot_be_had_or_written_is_one_line(
    shell: Shell, session: dict[str, Any]
) -> None:
    unregistered = create(shell)
    line = one_line(shell("evidence", unregistered["id"]), 1)
    assert line.startswith("session_not_registered: ")
    assert line.endswith(", so it has no evidence: only one that was created with --mint-pkp has")
    line = one_line(shell("evidence", session["id"], "-o", "no/such/directory"), 2)
    assert line.startswith("invalid_parameter: --output: no/such/directory: ")


@pytest.mark.parametrize(
    "arguments",
    [
        (b"sessions", b"get", b"\xff\xfe"),
        (b"sessions", b"create", b"--agent-id", b"\xc3\x28", b"--wallet", b"x"),
        (b"pay", b"\xf0\x9f", b"--session-token", b"zai_session_x"),
        (b"\xff",),
        (b"anchor", b"--\xff"),
        (b"verify", b"\xff", b"--rpc", b"http://x", b"--registry", b"0x\xff"),
    ],
)
def test_bytes_that_are_no_text_are_wrong_usage(shell: Shell, arguments: tuple[bytes, ...]) -> None:
    one_line(shell(*arguments), 2)


def test_bytes_that_are_no_text_do_not_confuse_a_process(shell: Shell) -> None:
    one_line(shell.process(b"sessions", b"get", b"\xff\xfe"), 2)


def test_a_reader_that_went_away_is_no_failure_to_talk_about(
    shell: Shell, session: dict[str, Any]
) -> None:
    for arguments in (
        ("sessions", "list"),
        ("sessions", "list", "--json"),
        ("sessions", "get", session["id"]),
        ("reconcile",),
        ("evidence", session["id"], "-o", str(shell.directory / "unread.json")),
        ("fsck", "--data-dir", str(shell.directory / "data")),
        ("verify", "/dev/null", "--rpc", "http://127.0.0.1:1", "--registry", "0x" + "11" * 20),
    ):
        reading, writing = os.pipe()
        os.close(reading)
        known = environment(url=shell.server.url, api_key=shell.key)
        command = [COMMAND, *arguments]
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, env=known, check=False, timeout=60
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (141, b"")
    piped = subprocess.run(
        ["bash", "-c", '"$@" | head -1', "bash", COMMAND, "sessions", "list"],
        capture_output=True,
        env=known,
        check=False,
        timeout=60,
    )
    assert (len(piped.stdout.splitlines()), piped.stderr) == (1, b"")


def test_a_full_disk_is_one_line(shell: Shell) -> None:
    known = environment(url=shell.server.url, api_key=shell.key)
    for arguments in (("sessions", "list"), ("sessions", "list", "--json")):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [COMMAND, *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=known,
                check=False,
                timeout=60,
            )
        assert one_line(done, 70).startswith("internal_error: ")


def test_an_ascii_terminal_hears_everything(shell: Shell, session: dict[str, Any]) -> None:
    done = subprocess.run(
        [COMMAND, "sessions", "list"],
        capture_output=True,
        env=environment(url=shell.server.url, api_key=shell.key) | {"PYTHONIOENCODING": "ascii"},
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert session["id"].encode() in done.stdout


def test_conditions_and_restrictions_are_sentences(shell: Shell) -> None:
    sentences = (
        "--condition",
        "never merchant casino",
        "--condition",
        "at most 2 payments per day",
    )
    created = create(shell, *sentences)
    assert created["conditions"] == ["at most 2 payments per day", "never merchant casino"]
    pay(shell, created, "1", "--merchant", "books")
    done = shell("sessions", "restrict", created["id"], "--restriction", "lifetime at most 9.5 USD")
    assert (done.returncode, done.stderr) == (0, "")
    shown = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "condition never merchant casino" in shown
    assert "restriction lifetime at most 9.5 USD" in shown
    assert "left $8.50 of lifetime at most 9.5 USD" in shown
    assert "left 1 of at most 2 payments per day" in shown
    lifted = json.loads(shell("sessions", "restrict", created["id"], "--lift", "--json").stdout)
    assert (lifted["restrictions"], lifted["policy_version"]) == ([], 3)


def test_a_condition_that_is_none_is_refused_by_its_place(shell: Shell) -> None:
    wallet = ("--agent-id", "shopper", "--wallet", shell.owner.address)
    done = shell("sessions", "create", *wallet, "--condition", "at most 1 payments per day")
    assert done.returncode == 1
    assert done.stderr == ("invalid_parameter: --condition: write 'at most 1 payment per day'\n")
    for options in ((), ("--lift", "--restriction", "never merchant x")):
        done = shell("sessions", "restrict", "sess_x", *options)
        assert (done.returncode, done.stderr.split(":")[0]) == (2, "invalid_parameter")


def test_a_session_token_opens_a_session_beneath_its_own(shell: Shell) -> None:
    parent = create(shell, "--max-per-day", "100")
    wallet = ("--agent-id", "shopper", "--wallet", shell.owner.address)
    asked = ("sessions", "create", *wallet, "--parent", parent["id"], "--duration", "1")
    secret = parent["session_token"]
    done = shell(*asked, "--max-per-day", "101", "--json", api_key="", session_token=secret)
    assert (done.returncode, done.stderr) == (
        1,
        "invalid_parameter: --max-per-day: is above the parent's\n",
    )
    done = shell(*asked, "--max-per-day", "9", "--json", api_key="", session_token=secret)
    assert (done.returncode, done.stderr) == (0, "")
    child = json.loads(done.stdout)
    assert (child["parent_id"], child["consent"]) == (parent["id"], "delegated")
    assert create(shell, "--parent", parent["id"], "--duration", "1", "--max-per-day", "9")
    as_long = create(shell, "--parent", parent["id"], "--max-per-day", "9")
    assert as_long["expires_at"] == parent["expires_at"]


def test_budgets_are_set_listed_and_lifted(shell: Shell) -> None:
    assert shell("budgets", "list").stdout == "no budgets yet\n"
    create(shell)  # registers the agent
    limits = ("--max-per-month", "99999.50", "--max-payments-per-hour", "10000")
    done = shell("budgets", "set", "--agent", "shopper", *limits)
    assert (done.returncode, done.stderr) == (0, "")
    told = r"agent:shopper: \d+ of 10000 payments per hour, \$[\d.]+ of \$99,999.50 per 30 days\n"
    assert re.fullmatch(told, done.stdout)
    done = shell("budgets", "set", "--max-lifetime", "999999", "--json")
    assert json.loads(done.stdout)["id"] == "workspace"
    lines = shell("budgets", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["BUDGET", "agent:shopper", "workspace"]
    assert " of $999,999.00 ever" in lines[2]
    assert len(json.loads(shell("budgets", "list", "--json").stdout)) == 2
    for whose, told in (((), "the workspace"), (("--agent", "shopper"), "agent shopper")):
        done = shell("budgets", "clear", *whose)
        assert (done.returncode, done.stdout) == (0, f"the budget of {told} is lifted\n")
        assert one_line(shell("budgets", "clear", *whose), 1) == "budget_not_found: no such budget"
    assert one_line(shell("budgets", "set"), 1).startswith(
        "invalid_parameter: body: names no limit"
    )
    done = shell("budgets", "set", "--agent", "nobody", "--max-per-day", "1")
    assert one_line(done, 1) == "agent_not_found: no such agent"
