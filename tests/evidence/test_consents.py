"""Owners with a passkey, and owners that are contracts: from the signature to the auditor."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from engine.audit.consent import passkey_owner
from engine.audit.evidence import render_evidence, seal_message
from engine.audit.verify import Report, Verdict, verify
from engine.chain.gateway import ChainUnavailable
from engine.errors import Conflict, InvalidInput
from engine.evidence.chain_view import GatewayView
from engine.sessions.session import SessionView
from tests.audit.test_vectors import check_schema, validator
from tests.contracts.passkey import Passkey
from tests.contracts.wallet import deploy_wallet, freeze
from tests.evidence.story import Document, failed, read
from tests.evidence.test_lying_chain import Endpoint
from tests.world import WORKSPACE, World

PASSKEY = Passkey(0x9A55)
PASSKEY_OWNER = passkey_owner(PASSKEY.x.to_bytes(32), PASSKEY.y.to_bytes(32))


@dataclass
class Owners:
    """An installation, a passkey and a wallet that is a contract with a key."""

    world: World
    payer: LocalAccount
    key: LocalAccount
    wallet: str
    files: dict[str, bytes] = field(default_factory=dict)

    def digest(self, view: SessionView) -> bytes:
        return view.grant.digest(self.world.engine.sessions.domain)

    def signature(self, kind: str, view: SessionView) -> bytes:
        digest = self.digest(view)
        if kind == "passkey":
            return PASSKEY.sign(digest)
        return bytes(self.key.unsafe_sign_hash(digest).signature)

    def create(self, kind: str, **changes: Any) -> SessionView:
        owner = PASSKEY_OWNER if kind == "passkey" else self.wallet
        return self.world.create(user_wallet=owner, owner=owner, **changes)

    def consent(self, kind: str, view: SessionView, signature: bytes | None = None) -> SessionView:
        signed = self.signature(kind, view) if signature is None else signature
        return self.world.engine.consent(WORKSPACE, view.id, signed, kind=kind, wait_s=10)

    def verify(self, file: bytes, gateway: Any = None) -> Report:
        engine = self.world.engine
        view = GatewayView(gateway or engine.gateway)
        return verify(file, view, registry=engine.deployment.registry)

    def resealed(self, kind: str, change: Callable[[Document], object]) -> bytes:
        document = read(self.files[kind])
        change(document["session"])
        content = {name: value for name, value in document.items() if name != "signature"}
        key = self.world.engine.deployment.log_key
        return render_evidence(content, key.sign(seal_message(content)))


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owners]:
    world = World(tmp_path_factory.mktemp("owners") / "data")
    payer, key = Account.create(), Account.create()
    gateway: Any = world.engine.gateway
    gateway.fund(payer.address.lower(), 10**18)
    opened = Owners(world, payer, key, deploy_wallet(gateway, payer, key.address))
    for kind in ("passkey", "erc1271"):
        view = opened.consent(kind, opened.create(kind))
        assert (view.state, view.consent) == ("active", kind)
        same = {"limits": view.grant.limits, "duration_ms": 3_600_000}
        child = opened.create(kind, parent_id=view.id, await_consent=False, **same)
        for session in (view, child):
            assert world.pay(session, 5).state == "captured"
        world.engine.anchor()
        opened.files[kind] = world.engine.evidence(WORKSPACE, view.id)
        opened.files[f"{kind} above"] = world.engine.evidence(WORKSPACE, child.id)
    freeze(gateway, payer, opened.wallet)
    yield opened
    world.engine.close()


def reason(report: Report) -> str:
    return next(check.reason for check in report.checks if check.name == "consent")


def test_a_passkey_s_consent_is_verified(owners: Owners) -> None:
    report = owners.verify(owners.files["passkey"])
    assert report.verdict is Verdict.VERIFIED, report.reason
    assert reason(report) == f"signed by {PASSKEY_OWNER} (passkey)"


@pytest.mark.parametrize("name", ["passkey", "passkey above", "erc1271", "erc1271 above"])
def test_every_file_fits_the_schema(owners: Owners, name: str) -> None:
    check_schema(read(owners.files[name]))


@pytest.mark.parametrize(
    "change",
    [
        {"consent": "eip712"},
        {"consent": "none"},
        {"consent": "delegated"},
        {"consent": "else"},
        {"owner_signature": None},
        {"owner_signature": ""},
        {"owner_signature": "0"},
        {"owner_signature": "00" * 8_193},
    ],
)
def test_the_schema_refuses_a_signature_that_is_none_of_its_kind(
    owners: Owners, change: Document
) -> None:
    document = read(owners.files["passkey"])
    document["session"] |= change
    assert not validator().is_valid(document)


def test_a_wallet_s_consent_is_verified_as_it_was_in_the_block_of_the_registration(
    owners: Owners,
) -> None:
    """Today the wallet is frozen and would take nothing."""
    report = owners.verify(owners.files["erc1271"])
    assert report.verdict is Verdict.VERIFIED, report.reason
    assert reason(report).startswith(f"accepted by the contract {owners.wallet} in block ")
    assert reason(report).endswith(" (ERC-1271)")


def test_where_nobody_has_the_wallet_s_state_of_then_the_registry_s_word_is_told(
    owners: Owners,
) -> None:
    gateway = owners.world.engine.gateway

    def prune(name: str, arguments: tuple[Any, ...], answer: Any) -> Any:
        if name == "call" and arguments[0] == owners.wallet:
            raise ChainUnavailable("missing trie node")
        return answer

    report = owners.verify(owners.files["erc1271"], Endpoint(gateway, prune))
    assert report.verdict is Verdict.VERIFIED, report.reason
    assert reason(report).endswith("says the registry: no endpoint has the wallet's state of then")


@pytest.mark.parametrize("kind", ["passkey", "erc1271"])
def test_what_is_delegated_from_it_names_it(owners: Owners, kind: str) -> None:
    report = owners.verify(owners.files[f"{kind} above"])
    assert report.verdict is Verdict.VERIFIED, report.reason
    above = reason(owners.verify(owners.files[kind]))
    assert reason(report) == f"delegated from a grant {above}"


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda raw: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "the first byte": flipped(0),
    "byte 40": flipped(40),
    "byte 64": flipped(64),
    "one byte": lambda raw: raw[:1],
    "cut in half": lambda raw: raw[: len(raw) // 2],
    "of another digest": lambda raw: PASSKEY.sign(bytes(32)) if len(raw) > 65 else b"\1" * 65,
}


@pytest.mark.parametrize("kind", ["passkey", "erc1271"])
@pytest.mark.parametrize("change", CHANGES)
def test_another_signature_than_the_owner_s_is_tampering(
    owners: Owners, kind: str, change: str
) -> None:
    def edit(session: Document) -> None:
        raw = bytes.fromhex(session["owner_signature"])
        session["owner_signature"] = CHANGES[change](raw).hex()

    report = owners.verify(owners.resealed(kind, edit))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "consent"), report.reason


@pytest.mark.parametrize("kind", ["passkey", "erc1271"])
@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"owner_signature": None}, id="no signature"),
        pytest.param({"owner_signature": None, "consent": "none"}, id="nobody's"),
        pytest.param({"owner_signature": None, "consent": "delegated"}, id="delegated"),
        pytest.param({"consent": "eip712", "owner_signature": "11" * 65}, id="another kind"),
        pytest.param({"consent": "none"}, id="denied"),
    ],
)
def test_another_consent_than_the_chain_s_is_tampering(
    owners: Owners, kind: str, edit: dict[str, Any]
) -> None:
    report = owners.verify(owners.resealed(kind, lambda session: session.update(edit)))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "consent"), report.reason


@pytest.mark.parametrize("kind", ["passkey", "erc1271"])
@pytest.mark.parametrize(
    ("edit", "said"),
    [
        pytest.param({"owner_signature": None}, "it has no signature", id="no signature"),
        pytest.param({"consent": "none"}, "the chain records consent", id="nobody's"),
        pytest.param({"owner_signature": "11" * 65}, "delegated from", id="another"),
    ],
)
def test_the_consent_of_a_session_above_is_checked_alike(
    owners: Owners, kind: str, edit: dict[str, Any], said: str
) -> None:
    def change(session: Document) -> None:
        session["ancestors"][0].update(edit)

    report = owners.verify(owners.resealed(f"{kind} above", change))
    assert (report.verdict, failed(report)) == (Verdict.TAMPERED, "consent"), report.reason
    assert said in report.reason


# What the server takes.


@pytest.mark.parametrize("kind", ["passkey", "erc1271"])
def test_only_the_owner_s_signature_is_taken(owners: Owners, kind: str) -> None:
    view = owners.create(kind)
    other = owners.signature(kind, owners.create(kind))
    for signature in (other, b"\0" * 65, b"\1"):
        with pytest.raises(InvalidInput, match="owner_signature"):
            owners.consent(kind, view, signature)
    # The wallet takes nothing any more, not even what is the owner's.
    if kind == "erc1271":
        with pytest.raises(InvalidInput, match=f"not accepted by the contract {owners.wallet}"):
            owners.consent(kind, view)
    else:
        assert owners.consent(kind, view).state == "active"


def test_a_signature_is_of_the_kind_that_is_said(owners: Owners) -> None:
    view = owners.create("passkey")
    for kind in ("eip712", "erc1271"):
        with pytest.raises(InvalidInput, match="owner_signature"):
            owners.consent(kind, view, owners.signature("passkey", view))
    taken = owners.consent("passkey", view)
    assert owners.consent("passkey", view, taken.owner_signature) == taken
    with pytest.raises(Conflict):
        owners.consent("eip712", view, taken.owner_signature)


def test_a_wallet_s_consent_needs_the_chain(owners: Owners) -> None:
    view = owners.create("erc1271", mint_pkp=False, await_consent=True)
    with pytest.raises(InvalidInput, match="consent: erc1271 needs a session with mint_pkp"):
        owners.consent("erc1271", view)


def test_a_wallet_that_cannot_be_asked_is_not_taken_to_agree(
    owners: Owners, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = owners.create("erc1271")

    def silent(*_: Any, **__: Any) -> bytes:
        raise ChainUnavailable("connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(owners.world.engine.gateway, "call", silent)
        with pytest.raises(ChainUnavailable):
            owners.consent("erc1271", view)
    assert owners.world.engine.sessions.get(WORKSPACE, view.id).state == "awaiting_consent"


def test_a_passkey_s_consent_holds_without_the_chain(owners: Owners) -> None:
    """Of a session that is on none, and of those that it delegates to and that are on one."""
    view = owners.consent("passkey", owners.create("passkey", mint_pkp=False, await_consent=True))
    assert (view.state, view.consent) == ("active", "passkey")
    same = {"limits": view.grant.limits, "duration_ms": 3_600_000}
    child = owners.create("passkey", parent_id=view.id, await_consent=False, **same)
    owners.world.engine.anchor()
    report = owners.verify(owners.world.engine.evidence(WORKSPACE, child.id))
    assert report.verdict is Verdict.VERIFIED, report.reason
    assert reason(report) == f"delegated from a grant signed by {PASSKEY_OWNER} (passkey)"
