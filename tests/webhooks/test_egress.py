"""Where a delivery goes, and where it does not: real sockets, some of which nothing may reach."""

import datetime as dt
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from engine.errors import InvalidInput
from engine.webhooks.addresses import parse_url, permitted
from engine.webhooks.egress import Egress, Outcome
from tests.webhooks.receiver import Received, Receiver
from tests.webhooks.urls import HOSTILE, REBINDING

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def post(egress: Egress, url: str) -> Outcome:
    return egress.post(url, b"{}", {"webhook-id": "evt_1"})


class Sentinel:
    """Listens on every address of this machine, and knows whether anybody connected."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        first = self._opened.enter_context(socket.create_server(("0.0.0.0", 0), backlog=4096))
        self.port = first.getsockname()[1]
        both = {"family": socket.AF_INET6, "backlog": 4096}
        self._sockets = [
            first,
            self._opened.enter_context(socket.create_server(("::", self.port), **both)),
        ]

    def close(self) -> None:
        """Stop."""
        self._opened.close()

    def reached(self) -> int:
        """How many connections wait to be accepted; they are taken."""
        count = 0
        while ready := select.select(self._sockets, [], [], 0)[0]:
            for each in ready:
                each.accept()[0].close()
                count += 1
        return count


@pytest.fixture(scope="module")
def sentinel() -> Iterator[Sentinel]:
    opened = Sentinel()
    yield opened
    opened.close()


def worst_resolver(host: str, port: int) -> list[str]:
    """Any spelling of an address that the system knows, and every name, is this machine."""
    try:
        found = socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)
    except OSError:
        return ["127.0.0.1", "::1"]
    return [str(entry[4][0]) for entry in found]


def test_no_socket_reaches_what_is_not_public(sentinel: Sentinel) -> None:
    """Observed at the sentinel, whatever is answered."""
    egress = Egress(resolve=worst_resolver, deadline_s=1)
    assert len(HOSTILE) >= 150
    for url in HOSTILE:
        outcome = post(egress, url.replace("{port}", str(sentinel.port)))
        assert (outcome.status_code, outcome.success) == (None, False), url
        assert outcome.error is not None
        assert sentinel.reached() == 0, url


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_it_is_reached_if_a_setting_says_so(sentinel: Sentinel, host: str) -> None:
    outcome = post(Egress(LOOPBACK, deadline_s=0.3), f"http://{host}:{sentinel.port}/")
    assert outcome.error == "no answer in time"
    assert sentinel.reached() == 1


def test_one_network_that_is_allowed_allows_no_other(sentinel: Sentinel) -> None:
    egress = Egress((ip_network("127.0.0.9/32"),), deadline_s=0.3)
    for host in ("127.0.0.8", "[::1]", "[::ffff:127.0.0.9]", "localhost"):
        assert post(egress, f"http://{host}:{sentinel.port}/").status_code is None
        assert sentinel.reached() == 0
    assert post(egress, f"http://127.0.0.9:{sentinel.port}/").error == "no answer in time"
    assert sentinel.reached() == 1


@pytest.mark.parametrize("answers", REBINDING, ids=" ".join)
def test_every_address_of_a_name_is_looked_at(sentinel: Sentinel, answers: tuple[str, ...]) -> None:
    egress = Egress(resolve=lambda *_: answers, deadline_s=0.3)
    outcome = post(egress, f"https://hooks.example.org:{sentinel.port}/")
    assert outcome.status_code is None
    assert (outcome.error or "").startswith("the host has ")
    assert sentinel.reached() == 0


def test_a_resolver_that_changes_its_mind_is_asked_once(receiver: Receiver) -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.66"], ["127.0.0.66"]])
    egress = Egress(LOOPBACK, resolve=lambda *_: next(answers))
    outcome = post(egress, f"http://hooks.example.org:{receiver.port}/x?y=1")
    assert outcome.status_code == 200
    [received] = receiver.received
    assert received.path == "/x?y=1"
    assert received.headers["host"] == f"hooks.example.org:{receiver.port}"
    assert list(answers) == [["127.0.0.66"]] * 2


def test_a_public_address_is_not_sent_to_in_clear() -> None:
    for url, egress in (
        ("http://93.184.216.34/", Egress(LOOPBACK)),
        ("http://example.org/", Egress(LOOPBACK, resolve=lambda *_: ["93.184.216.34"])),
    ):
        assert post(egress, url).error == "a public address is only sent to by https"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_is_not_followed(
    sentinel: Sentinel, receiver: Receiver, status: int
) -> None:
    receiver.answer = lambda _: (status, {"Location": f"http://127.0.0.1:{sentinel.port}/"})
    outcome = post(Egress(LOOPBACK), receiver.url)
    assert (outcome.status_code, outcome.success) == (status, False)
    assert (len(receiver.received), sentinel.reached()) == (1, 0)


def test_the_environment_names_no_proxy(
    sentinel: Sentinel, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{sentinel.port}")
    assert post(Egress(LOOPBACK), receiver.url).success
    assert sentinel.reached() == 0


def test_what_is_public_is_permitted() -> None:
    for address in ("1.1.1.1", "8.8.8.8", "93.184.216.34", "223.255.255.255", "2606:4700::1111"):
        assert permitted(ip_address(address))
    for url in (
        "https://hooks.example.org/a/b?c=d&e=%20",
        "https://hooks.example.org",
        "https://xn--bcher-kva.example:8443/~me/",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]:8443/x",
    ):
        parse_url(url)
    with pytest.raises(InvalidInput, match="url: is longer than 2000 characters"):
        parse_url("https://hooks.example.org/" + "a" * 2_000)


Script = Callable[[socket.socket], None]


@contextmanager
def answering(script: Script) -> Iterator[int]:
    """A server that does whatever it likes with one connection; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    request = b""
                    while not request.endswith(b"{}"):
                        request += connection.recv(65_536)
                    script(connection)
                except OSError:
                    pass  # the other side has had enough

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def drip(connection: socket.socket) -> None:
    """A byte now and then, without an end."""
    connection.settimeout(0.02)
    while True:
        connection.sendall(b"H")
        with_patience(connection)


def with_patience(connection: socket.socket) -> None:
    """Wait a moment, or until the other side is gone."""
    try:
        if connection.recv(1) == b"":
            raise ConnectionResetError
    except TimeoutError:
        pass


def drip_headers(connection: socket.socket) -> None:
    connection.settimeout(0.02)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-A: b\r\n")
        with_patience(connection)


def repeat(what: bytes) -> Script:
    """The same again and again, as fast as it is read."""

    def script(connection: socket.socket) -> None:
        connection.settimeout(5)
        while True:
            connection.sendall(what)

    return script


def say(what: bytes) -> Script:
    return lambda connection: connection.sendall(what)


def hang(connection: socket.socket) -> None:
    connection.settimeout(5)
    connection.recv(1)  # until the other side closes


LOST = "the connection was lost, or the answer is no HTTP"
LATE = "no answer in time"
ZOO: dict[str, tuple[Script, int | None, str | None]] = {
    "says nothing": (hang, None, LATE),
    "drips": (drip, None, LOST),
    "drips headers": (drip_headers, None, LATE),
    "hangs up": (lambda _: None, None, LOST),
    "no HTTP": (say(b"220 mail.example.org ESMTP\r\n"), None, LOST),
    "headers without end": (repeat(b"X-A: " + b"b" * 4_096 + b"\r\n"), None, LOST),
    "one header without end": (repeat(b"b" * 4_096), None, LOST),
    "a status that is none": (say(b"HTTP/1.1 9999 OK\r\n\r\n"), None, LOST),
    "half an answer": (say(b"HTTP/1.1 200 OK\r\nContent-Le"), None, LOST),
    "not yet, without end": (repeat(b"HTTP/1.1 100 Continue\r\n\r\n"), None, LATE),
    "another protocol": (say(b"HTTP/1.1 101 Upgrade\r\nUpgrade: x\r\n\r\n"), None, LOST),
    "less than it says": (say(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nab"), 200, None),
    "a body without end": (say(b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 4_000_000), 200, None),
    "no body": (say(b"HTTP/1.1 204 No Content\r\n\r\n"), 204, None),
    "an error": (say(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), 500, None),
}


@pytest.mark.parametrize("kind", ZOO)
def test_whatever_answers_it_is_over_in_time(kind: str) -> None:
    script, status, error = ZOO[kind]
    with answering(script) as port:
        outcome = post(Egress(LOOPBACK, deadline_s=0.4), f"http://127.0.0.1:{port}/")
    assert outcome.status_code == status
    if kind == "drips":
        assert outcome.error in (LATE, LOST)
    else:
        assert outcome.error == error


def test_a_port_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert post(Egress(LOOPBACK), f"http://127.0.0.1:{port}/").error == "no connection"


def test_the_first_retry_after_is_the_one_that_counts() -> None:
    told = b"HTTP/1.1 429 No\r\nRetry-After: 7\r\nretry-after: 9\r\nContent-Length: 0\r\n\r\n"
    with answering(say(told)) as port:
        outcome = post(Egress(LOOPBACK), f"http://127.0.0.1:{port}/")
    assert (outcome.status_code, outcome.retry_after) == (429, "7")


HOST = "hooks.example.org"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for `HOST` that is signed by itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now.replace(year=2126))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + made.public_bytes(Encoding.PEM))
    return path


@contextmanager
def over_tls(certificate: Path) -> Iterator[tuple[int, list[tuple[str | None, str]]]]:
    """A server with the certificate: its port, and the names it was asked for, SNI and Host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    asked: list[tuple[str | None, str]] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with Receiver() as receiver:
        wrapped = context.wrap_socket(receiver._server.socket, server_side=True)
        wrapped.settimeout(5)
        receiver._server.socket = wrapped

        def answer(request: Received) -> int:
            asked.append((names[-1], request.headers["host"]))
            return 200

        receiver.answer = answer
        yield receiver.port, asked


def test_the_name_of_the_url_is_the_one_in_the_certificate_and_in_the_headers(
    certificate: Path,
) -> None:
    trusting = ssl.create_default_context(cafile=certificate)
    to_here = Egress(LOOPBACK, resolve=lambda *_: ["127.0.0.1"], ssl_context=trusting)
    with over_tls(certificate) as (port, asked):
        assert post(to_here, f"https://{HOST}:{port}/").success
        assert asked == [(HOST, f"{HOST}:{port}")]
        other = post(to_here, f"https://other.example.org:{port}/")
        assert (other.status_code, other.error) == (None, "TLS: CERTIFICATE_VERIFY_FAILED")
        untrusting = Egress(LOOPBACK, resolve=lambda *_: ["127.0.0.1"])
        unknown = post(untrusting, f"https://{HOST}:{port}/")
        assert (unknown.status_code, unknown.error) == (None, "TLS: CERTIFICATE_VERIFY_FAILED")
        assert len(asked) == 1
