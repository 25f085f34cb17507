"""Our contracts as the engine sees them: calls out, answers and events in, nothing believed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_abi.exceptions import EncodingError
from eth_account import Account
from eth_keys.datatypes import PrivateKey
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st
from web3 import Web3

from engine.chain import contracts, sender
from engine.chain.deploy import create, deploy
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import CallReverted, ChainError, ChainUnavailable, Log
from engine.grant import NO_PARENT, Domain, Grant
from engine.policy.limits import Limits
from tests.chain import bytecode

REGISTRY, ANCHORS = contracts.SESSION_REGISTRY, contracts.ANCHOR_REGISTRY
ARTIFACTS = Path(__file__).parents[2] / "contracts" / "artifacts"


class Deployment:
    """Both registries on an embedded chain, and one registered session."""

    def __init__(self) -> None:
        self.chain = EmbeddedChain(None)
        self.operator, self.owner, secret = (
            Account.create(),
            Account.create(),
            PrivateKey(b"k" * 32),
        )
        self.chain.fund(self.operator.address.lower(), 10**18)
        self.deployed = deploy(self.chain, self.operator)
        self.public_key = b"\x04" + secret.public_key.to_bytes()
        now_s = self.chain.head().timestamp_s
        self.grant = Grant(
            owner=self.owner.address.lower(),
            session_key=secret.public_key.to_address(),
            audit_log=bytes(32),
            parent=NO_PARENT,
            workspace="default",
            agent_id="bot",
            permissions=("pay",),
            merchants=("ünï.example", "b"),
            tokens=(),
            chains=("eip155:1",),
            limits=Limits(1, 2, 3, None, 0),
            conditions=("at most 10 payments per hour",),
            valid_from_s=now_s,
            valid_until_s=now_s + 3600,
            salt=b"s" * 32,
        )

    def registration(self, *, signed: bool = False) -> bytes:
        """The call data that registers the session."""
        signature = None
        if signed:
            domain = Domain(self.chain.chain_id, self.deployed.registry)
            typed_data = self.grant.typed_data(domain)
            signature = bytes(self.owner.sign_typed_data(full_message=typed_data).signature)
        return contracts.registering(self.grant, self.public_key, signature)


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    """A fresh chain."""
    found = Deployment()
    yield found
    found.chain.close()


def registered(deployment: Deployment, *, signed: bool = False) -> list[Log]:
    """The events of the registration, after the one that opens its workspace."""
    tx_hash = sender.send(
        deployment.chain,
        deployment.operator,
        to=deployment.deployed.registry,
        data=deployment.registration(signed=signed),
    )
    receipt = deployment.chain.receipt(tx_hash)
    assert receipt is not None
    opened, *logs = receipt.logs
    assert opened.topics[0] == contracts.event_topic(REGISTRY, "WorkspaceOpened")
    return logs


def test_a_call_is_selector_and_arguments() -> None:
    data = contracts.call_data(ANCHORS, "anchor", b"l" * 32, 7, b"r" * 32)
    selector = keccak(text="anchor(bytes32,uint64,bytes32)")[:4]
    assert data == selector + encode(["bytes32", "uint64", "bytes32"], [b"l" * 32, 7, b"r" * 32])


def sample(field: Any) -> Any:
    """A value of a type of the ABI."""
    kind = field["type"]
    if kind.endswith("[]"):
        return [sample({**field, "type": kind.removesuffix("[]")})] * 2
    if kind == "tuple":
        return tuple(map(sample, field["components"]))
    if kind.startswith("uint"):
        return 2 ** int(kind.removeprefix("uint")) - 3
    if kind.startswith("bytes") and kind != "bytes":
        return b"\xa7" * int(kind.removeprefix("bytes"))
    return {"address": "0x" + "15" * 20, "bool": True, "bytes": b"abc", "string": "é"}[kind]


@pytest.mark.parametrize("name", [REGISTRY, ANCHORS, contracts.TEST_USDC])
def test_what_is_encoded_is_what_web3_encodes(name: str) -> None:
    artifact = json.loads((ARTIFACTS / f"{name}.json").read_text())
    theirs: Any = Web3().eth.contract(abi=artifact["abi"], bytecode=artifact["bytecode"])
    called = 0
    for item in artifact["abi"]:
        values = [sample(field) for field in item.get("inputs", ())]
        if item["type"] == "function":
            expected = theirs.encode_abi(item["name"], args=values)
            assert contracts.call_data(name, item["name"], *values).hex() == expected[2:]
            called += 1
        elif item["type"] == "constructor":
            expected = theirs.constructor(*values).data_in_transaction
            assert contracts.creation_code(name, *values).hex() == expected[2:]
        elif item["type"] == "event":
            expected = theirs.events[item["name"]]().topic
            assert contracts.event_topic(name, item["name"]).hex() == expected[2:]
    assert called > 5


def test_what_is_decoded_is_what_web3_decodes(well_formed: Log) -> None:
    artifact = json.loads((ARTIFACTS / f"{REGISTRY}.json").read_text())
    theirs: Any = Web3().eth.contract(abi=artifact["abi"])
    log: Any = {
        "address": to_checksum_address(well_formed.address),
        "topics": well_formed.topics,
        "data": well_formed.data,
        "blockNumber": 1,
        "blockHash": well_formed.block_hash,
        "transactionHash": well_formed.tx_hash,
        "transactionIndex": 0,
        "logIndex": 0,
    }
    expected = theirs.events.SessionRegistered().process_log(log)
    found = contracts.decode_log(REGISTRY, well_formed)
    assert found is not None
    assert found.args == expected["args"]


@pytest.mark.parametrize("salt", [b"", b"s" * 31, b"s" * 33])
def test_a_word_that_is_cut_off_or_too_long_is_not_filled_up(salt: bytes) -> None:
    with pytest.raises(EncodingError):
        contracts.call_data(ANCHORS, "openLog", salt)


def test_the_topics_are_those_of_the_standards() -> None:
    transfer = keccak(text="Transfer(address,address,uint256)")
    used = keccak(text="AuthorizationUsed(address,bytes32)")
    assert (transfer, used) == (contracts.ERC20_TRANSFER, contracts.AUTHORIZATION_USED)
    minted = contracts.event_topic(REGISTRY, "PKPMinted")
    assert minted == keccak(text="PKPMinted(uint256,bytes)")


def test_the_registries_know_each_other_and_their_operator(deployment: Deployment) -> None:
    chain, deployed = deployment.chain, deployment.deployed
    assert contracts.read(chain, REGISTRY, deployed.registry, "anchors").lower() == deployed.anchors
    role = contracts.read(chain, REGISTRY, deployed.registry, "OPERATOR_ROLE")
    for account, has in ((deployment.operator, True), (deployment.owner, False)):
        arguments = ("hasRole", role, account.address)
        assert contracts.read(chain, REGISTRY, deployed.registry, *arguments) is has
    assert chain.block(deployed.block_number) is not None
    before = chain.logs(from_block=0, to_block=deployed.block_number - 1)
    assert [log for log in before if log.address in (deployed.registry, deployed.anchors)] == []


@pytest.mark.parametrize("signed", [False, True])
def test_an_event_is_decoded_with_all_it_says(deployment: Deployment, signed: bool) -> None:
    logs = registered(deployment, signed=signed)
    found = [contracts.decode_log(REGISTRY, log) for log in logs]
    assert [event.name for event in found if event] == ["SessionRegistered", "PKPMinted"]
    event = found[0]
    assert event is not None
    assert event.log == logs[0]
    assert event.args["grantHash"] == deployment.grant.hash()
    assert event.args["owner"] == deployment.owner.address
    assert contracts.CONSENT[event.args["consent"]] == ("eip712" if signed else "none")
    assert event.args["grant"]["workspace"] == keccak(b"default")
    assert event.args["grant"]["limits"]["perMonthMicroUsd"] == 2**64 - 1


def test_what_is_not_an_event_of_the_contract_is_none(deployment: Deployment) -> None:
    log = registered(deployment)[0]
    malformed = {
        "no topic": replace(log, topics=()),
        "unknown topic": replace(log, topics=(bytes(32), *log.topics[1:])),
        "an indexed argument is missing": replace(log, topics=log.topics[:-1]),
        "one too many": replace(log, topics=(*log.topics, bytes(32))),
        "no data": replace(log, data=b""),
        "data cut off": replace(log, data=log.data[:-33]),
        "an address of 32 bytes": replace(log, data=log.data[:32] + b"\xff" * 32 + log.data[64:]),
        "half a word": replace(log, data=log.data[:16]),
        "an event of another contract": replace(
            log, topics=(contracts.event_topic(ANCHORS, "Anchored"), *log.topics[1:])
        ),
    }
    decoded = {what: contracts.decode_log(REGISTRY, bad) for what, bad in malformed.items()}
    assert [what for what, event in decoded.items() if event is not None] == []
    assert contracts.decode_log(REGISTRY, log) is not None


WORDS = [n.to_bytes(32) for n in (0, 32, 64, 10**6, 2**31, 2**63 - 1, 2**64, 2**255, 2**256 - 1)]


@pytest.fixture(scope="module")
def well_formed() -> Log:
    """The event of a registration, which has an argument of every type that ours have."""
    deployment = Deployment()
    log = registered(deployment)[0]
    deployment.chain.close()
    return log


@given(st.data())
def test_no_event_makes_the_codec_raise(well_formed: Log, data: st.DataObject) -> None:
    """The indexer must go on whatever an endpoint answers."""
    words = [well_formed.data[at : at + 32] for at in range(0, len(well_formed.data), 32)]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(words) - 1))
        words[place] = data.draw(st.sampled_from(WORDS) | st.binary(min_size=32, max_size=32))
    length = data.draw(st.just(len(well_formed.data)) | st.integers(0, len(well_formed.data)))
    topic = st.sampled_from(WORDS) | st.binary(max_size=33)
    topics = data.draw(st.just(well_formed.topics[1:]) | st.lists(topic, max_size=4).map(tuple))
    bad = replace(
        well_formed, data=b"".join(words)[:length], topics=(well_formed.topics[0], *topics)
    )
    event = contracts.decode_log(REGISTRY, bad)
    assert event is None or event.name == "SessionRegistered"


def test_a_refusal_has_the_name_of_the_contracts_own_error(deployment: Deployment) -> None:
    registered(deployment)

    def refused(account: object, data: bytes) -> str:
        with pytest.raises(CallReverted) as caught:
            sender.send(
                deployment.chain,
                account,  # type: ignore[arg-type]
                to=deployment.deployed.registry,
                data=data,
            )
        return contracts.revert_name(caught.value)

    unknown = contracts.revoking(deployment.grant, b"\x01" * 32)
    again = deployment.registration()
    assert refused(deployment.operator, unknown) == "SessionUnknown"
    assert refused(deployment.operator, again) == "SessionExists"
    deployment.chain.fund(deployment.owner.address.lower(), 10**18)
    assert refused(deployment.owner, again) == "AccessControlUnauthorizedAccount"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (CallReverted(b"", ""), "a revert without a reason"),
        (CallReverted(b"\x01\x02\x03\x04", "error 0x01020304"), "error 0x01020304"),
        (CallReverted(keccak(text="SessionExists(uint256)")[:4], ""), "SessionExists"),
    ],
    ids=["nothing", "another contract's", "without its arguments"],
)
def test_any_refusal_can_be_told_to_people(error: CallReverted, name: str) -> None:
    assert contracts.revert_name(error) == name


def test_an_answer_that_is_not_of_the_function_is_not_believed(deployment: Deployment) -> None:
    """A contract without code answers nothing; another answers something else."""
    chain = deployment.chain
    receipt = chain.receipt(sender.send(chain, deployment.operator, to=None, data=bytecode.INIT))
    assert receipt is not None
    assert receipt.contract_address is not None
    for address in (deployment.owner.address.lower(), receipt.contract_address):
        with pytest.raises(ChainUnavailable, match="answered nonsense to anchors"):
            contracts.read(chain, REGISTRY, address, "anchors")


def test_a_deployment_that_reverts_is_an_error_and_not_an_address(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = contracts.creation_code
    monkeypatch.setattr(contracts, "creation_code", lambda *a: honest(*a)[:-64] + b"\xfe")
    monkeypatch.setattr(deployment.chain, "estimate_gas", lambda **_: 5_000_000)
    operator, anchors = deployment.operator, to_checksum_address(deployment.deployed.anchors)
    with pytest.raises(ChainError, match="reverted in transaction"):
        create(deployment.chain, operator, REGISTRY, operator.address, anchors)


def test_a_workspace_that_is_opened_with_the_deployment_costs_its_first_session_nothing() -> None:
    deployment = Deployment()
    registry = deploy(
        deployment.chain, deployment.operator, workspaces=(deployment.grant.workspace,)
    ).registry
    opened = contracts.read(
        deployment.chain, REGISTRY, registry, "workspace", keccak(text=deployment.grant.workspace)
    )
    assert opened == (1, False)
    receipts = [
        deployment.chain.receipt(
            sender.send(
                deployment.chain, deployment.operator, to=to, data=deployment.registration()
            )
        )
        for to in (deployment.deployed.registry, registry)
    ]
    deployment.chain.close()
    auto, ahead = (receipt.gas_used for receipt in receipts if receipt is not None)
    assert auto - ahead > 20_000
