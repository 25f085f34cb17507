"""`tallystick webhooks`: what an operator does with them."""

import json
import re
import threading
from contextlib import closing
from ipaddress import ip_network

from standardwebhooks.webhooks import Webhook

from engine.clock import system_clock
from engine.webhooks.egress import Egress
from engine.webhooks.signing import SECRET_BYTES, headers, secret_text
from tallystick.cli.listening import Listener
from tests.cli.conftest import Shell
from tests.cli.processes import one_line
from tests.webhooks.receiver import Receiver

ALLOWED_BY = "TALLYSTICK_WEBHOOK_NETWORKS of the server can allow it"
URL = "https://localhost/hooks"  # which is refused when it is connected to


def test_a_webhook_from_its_making_to_its_end(shell: Shell) -> None:
    assert shell("webhooks", "list").stdout == "no webhooks yet\n"
    done = shell("webhooks", "create", URL, "--event", "approval.requested")
    assert (done.returncode, done.stderr) == (0, "")
    match = re.fullmatch(r"webhook (wh_\w{26})\nsecret  (whsec_\S{44})\n", done.stdout)
    assert match is not None
    webhook, secret = match.groups()
    listed = shell("webhooks", "list").stdout
    assert re.search(rf"ACTIVE +{webhook} +{URL} +approval.requested +0 +never", listed)
    assert secret not in listed
    assert shell("webhooks", "logs", webhook).stdout == "nothing was sent yet\n"
    line = one_line(shell("webhooks", "test", webhook), 1)
    assert line == "webhook_failed: the host has an address that is not public"
    assert "the host has an address that is not public" in shell("webhooks", "logs", webhook).stdout
    rotated = shell("webhooks", "rotate-secret", webhook).stdout
    assert re.match(r"secret  whsec_\S{44}\nthe one before signs, too, until 2\d{3}-", rotated)
    assert secret not in rotated
    assert shell("webhooks", "disable", webhook).stdout == f"{webhook} is disabled\n"
    assert "DISABLED" in shell("webhooks", "list").stdout
    assert shell("webhooks", "enable", webhook).stdout == f"{webhook} is active\n"
    done = shell("webhooks", "replay", webhook, "--since", "2026-01-31T09:00:00Z")
    assert (done.returncode, done.stderr) == (0, "")
    [shown] = json.loads(shell("webhooks", "list", "--json").stdout)
    assert (shown["id"], shown["active"], "secret" in shown) == (webhook, True, False)
    assert shell("webhooks", "delete", webhook).stdout == f"{webhook} is deleted\n"
    assert one_line(shell("webhooks", "delete", webhook), 1).startswith("webhook_not_found: ")


def test_what_is_refused_is_named(shell: Shell) -> None:
    line = one_line(shell("webhooks", "create", "http://127.0.0.1/"), 1)
    assert line == f"invalid_parameter: URL: names an address that is not public: {ALLOWED_BY}"
    line = one_line(shell("webhooks", "create", URL, "--event", "nothing"), 1)
    assert line.startswith("invalid_parameter: --event: ")
    line = one_line(shell("webhooks", "replay", "wh_x", "--since", "soon"), 1)
    assert line.startswith("invalid_parameter: --since: ")


def test_what_is_listened_to_goes_on_as_it_came() -> None:
    shown: list[tuple[bytes, int]] = []
    secret = bytes(range(SECRET_BYTES))
    body = '{"id":"evt_1", "event":"payment.created","text":"ü"}'.encode()
    with (
        Receiver() as behind,
        closing(Listener(0, behind.url + "/x?y=1", lambda *told: shown.append(told))) as listener,
    ):
        thread = threading.Thread(target=listener.serve)
        thread.start()
        behind.answer = lambda _: 418
        signed = headers("evt_1", body, [secret], at_s=system_clock() // 1000)
        outcome = Egress((ip_network("127.0.0.0/8"),)).post(listener.url, body, signed)
    thread.join()
    assert outcome.status_code == 418
    [received] = behind.received
    assert (received.path, received.body) == ("/hooks/x?y=1", body)
    Webhook(secret_text(secret)).verify(received.body, received.headers)
    assert received.headers["x-zendfi-signature"] == signed["X-ZendFi-Signature"]
    assert received.headers["host"] == f"127.0.0.1:{behind.port}"
    assert shown == [(body, 418)]


def test_whoever_cannot_listen_is_told_so(shell: Shell) -> None:
    done = shell.process("webhooks", "listen", "--port", "0", api_key="zfi_test_nobody")
    assert one_line(done, 1).startswith("invalid_api_key: ")


def test_whoever_may_not_be_sent_to_hears_which_setting_allows_it(shell: Shell) -> None:
    done = shell.process("webhooks", "listen", "--port", "0")
    line = one_line(done, 1)
    assert line == f"invalid_parameter: url: names an address that is not public: {ALLOWED_BY}"
    done = shell.process("webhooks", "listen", "--port", "0", "--event", "nothing")
    assert "TALLYSTICK" not in one_line(done, 1)
