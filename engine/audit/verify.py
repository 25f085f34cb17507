"""Verify an evidence file: a numbered list of checks against the chain, and against nothing else.

 1  format        the file is canonical evidence of a version we know
 2  seal          the log's key signed the whole file
 3  chain         the file speaks of the chain and the registry that the auditor named
 4  registration  the registry holds this session key, with the hash of exactly this grant
 5  consent       the owner signed the grant (EIP-712), or the file says openly that nobody did
 6  log           the grant names this log, and the chain names this log's key
 7  anchor        the checkpoint is signed, and the chain holds its size and root
 8  inclusion     every record is under the anchored root (RFC 9162 section 2.1.3.2)
 9  sequence      the session's records are complete, chained and in order
10  replay        every decision comes out the same from the records alone
11  life          what the records say of registration and revocation is what the chain says
12  spends        everything the session's key moved on the chain is bound to an allowed record
13  tail          nothing is left that no anchor covers yet

Pure: the chain comes in through `ChainView`. What the caller must still do: get the registry's
address and an RPC URL from somewhere other than the file. An RPC that leaves out events hides them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature

from engine.audit import canonical
from engine.audit.checkpoint import Checkpoint, NoteError, open_note, public_key_of
from engine.audit.evidence import Evidence, EvidenceError, log_salt, parse_evidence, seal_message
from engine.audit.merkle import leaf_hash
from engine.audit.proofs import ProofError, verify_inclusion
from engine.audit.record import Record, decode_record
from engine.audit.replay import Replay, ReplayError
from engine.grant import ZERO_ADDRESS, Domain
from engine.policy.money import format_usd


class Verdict(Enum):
    """How a check, or the whole file, came out; the value is the exit code of the command."""

    VERIFIED = 0
    TAMPERED = 1
    PENDING = 3
    UNAVAILABLE = 4
    UNBINDABLE = 5


_BY_SEVERITY = (
    Verdict.TAMPERED,
    Verdict.UNAVAILABLE,
    Verdict.UNBINDABLE,
    Verdict.PENDING,
    Verdict.VERIFIED,
)


class ChainSilent(Exception):
    """Raised by a `ChainView` that cannot answer now."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A session as the registry's event tells it."""

    grant_hash: bytes
    owner: str
    consent: str
    block_number: int
    block_time_s: int
    tx_hash: bytes


@dataclass(frozen=True, slots=True)
class Revocation:
    """The end of a session as the registry's event tells it."""

    block_number: int
    block_time_s: int
    tx_hash: bytes


@dataclass(frozen=True, slots=True)
class Spend:
    """Something that left the session key's address."""

    what: str
    tx_hash: bytes


class ChainView(Protocol):
    """What verification asks a chain. Every method may raise `ChainSilent`."""

    @property
    def chain_id(self) -> int:
        """The EIP-155 chain id."""
        ...

    def anchors_of(self, registry: str) -> str | None:
        """The anchor registry that `registry` names; None if there is no such contract."""
        ...

    def registration(self, registry: str, token_id: bytes) -> Registration | None:
        """The registration of a token id."""
        ...

    def revocation(self, registry: str, token_id: bytes) -> Revocation | None:
        """The revocation of a token id."""
        ...

    def log_opened(self, anchors: str, log_id: bytes) -> bytes | None:
        """The salt under which a log was opened."""
        ...

    def anchored_root(self, anchors: str, log_id: bytes, size: int) -> bytes | None:
        """The root that was anchored for a log at a size."""
        ...

    def spends(self, address: str, from_block: int) -> Sequence[Spend]:
        """Every token transfer, payment authorization and transaction of an address."""
        ...


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered check and its reason, in one line."""

    number: int
    name: str
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """All checks that could be made, in order, and the worst of them."""

    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all checks."""
        found = {check.verdict for check in self.checks}
        return next(verdict for verdict in _BY_SEVERITY if verdict in found)

    @property
    def reason(self) -> str:
        """Why the verdict is what it is: the first check that has it."""
        decisive = next(check for check in self.checks if check.verdict is self.verdict)
        return f"{decisive.name}: {decisive.reason}"


class _Failed(Exception):
    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason


def _tampered(reason: str) -> _Failed:
    return _Failed(Verdict.TAMPERED, reason)


def verify(file: bytes, chain: ChainView, *, registry: str) -> Report:
    """Verify evidence against the chain; `registry` is the auditor's, never the file's.

    Never raises for anything the file holds or the chain answers.
    """
    try:
        evidence = parse_evidence(file)
    except EvidenceError as error:
        return Report((Check(1, "format", Verdict.TAMPERED, str(error)),))
    checks = [Check(1, "format", Verdict.VERIFIED, f"{len(file)} bytes of canonical evidence")]
    run = _Run(evidence, chain, registry.lower())
    for number, (name, step) in enumerate(run.steps(), start=2):
        try:
            checks.append(Check(number, name, Verdict.VERIFIED, step()))
        except _Failed as failed:
            checks.append(Check(number, name, failed.verdict, failed.reason))
        except ChainSilent as silence:
            checks.append(Check(number, name, Verdict.UNAVAILABLE, str(silence)))
    return Report(tuple(checks))


class _Run:
    def __init__(self, evidence: Evidence, chain: ChainView, registry: str) -> None:
        self.evidence = evidence
        self.chain = chain
        self.registry = registry
        self.records: list[Record] = []
        self.replay = Replay(evidence.grant, evidence.grant.hash())

    def steps(self) -> Iterator[tuple[str, Callable[[], str]]]:
        yield "seal", self.seal
        yield "chain", self.same_chain
        yield "registration", self.registered
        yield "consent", self.consent
        yield "log", self.log
        yield "anchor", self.anchor
        yield "inclusion", self.inclusion
        yield "sequence", self.sequence
        yield "replay", self.replayed
        yield "life", self.life
        yield "spends", self.spends
        yield "tail", self.tail

    # 2
    def seal(self) -> str:
        try:
            key = public_key_of(self.evidence.log_verifier_key)
            key.verify(self.evidence.signature, seal_message(self.evidence.content))
        except (NoteError, InvalidSignature):
            raise _tampered("the log's key did not sign this file as it is") from None
        return f"signed by {self.evidence.log_origin}"

    # 3
    def same_chain(self) -> str:
        if self.chain.chain_id != self.evidence.chain_id:
            raise _tampered(
                f"the file is of chain {self.evidence.chain_id}, this is {self.chain.chain_id}"
            )
        if self.registry != self.evidence.registry:
            raise _tampered(f"the file is of registry {self.evidence.registry}, not yours")
        if self._anchors() != self.evidence.anchors:
            raise _tampered("the file names another anchor registry than the session registry")
        return f"chain {self.chain.chain_id}, registry {self.registry}"

    # 4
    def registered(self) -> str:
        from eth_utils.crypto import keccak

        evidence = self.evidence
        if keccak(evidence.public_key[1:]) != evidence.token_id:
            raise _tampered("the token id is not the hash of the public key")
        if "0x" + evidence.token_id[-20:].hex() != evidence.grant.session_key:
            raise _tampered("the grant is for another session key")
        found = self.chain.registration(self.registry, evidence.token_id)
        if found is None:
            raise _tampered("the registry knows no session of this key")
        if found.grant_hash != evidence.grant.hash():
            raise _tampered("the registry holds other parameters than the file's grant")
        return f"in block {found.block_number}, transaction 0x{found.tx_hash.hex()}"

    # 5
    def consent(self) -> str:
        evidence = self.evidence
        found = self.chain.registration(self.registry, evidence.token_id)
        if found is None:
            raise _tampered("the registry knows no session of this key")
        if evidence.owner_signature is None:
            if found.consent != "none" or evidence.consent != "none":
                raise _tampered("the chain records a consent that the file does not show")
            return "none: an operator registered the session without the owner's signature"
        try:
            domain = Domain(evidence.chain_id, self.registry)
            signer = evidence.grant.signer(evidence.owner_signature, domain)
        except ValueError as error:
            raise _tampered(str(error)) from error
        if signer != evidence.grant.owner or evidence.grant.owner == ZERO_ADDRESS:
            raise _tampered(f"the grant was signed by {signer}, not by its owner")
        if (found.consent, evidence.consent) != ("eip712", "eip712"):
            raise _tampered(f"the chain records consent: {found.consent}")
        return f"signed by {signer} (EIP-712)"

    # 6
    def log(self) -> str:
        if self.evidence.grant.audit_log != self.evidence.log_id:
            raise _tampered("the grant names another log")
        salt = self.chain.log_opened(self._anchors(), self.evidence.log_id)
        if salt is None:
            raise _tampered("the anchor registry knows no such log")
        if salt != log_salt(self.evidence.log_verifier_key):
            raise _tampered("the log was opened for another verifier key")
        return f"0x{self.evidence.log_id.hex()}"

    # 7
    def anchor(self) -> str:
        evidence = self.evidence
        if evidence.checkpoint is None:
            if evidence.records:
                raise _tampered("records claim an anchor that the file does not name")
            raise _Failed(Verdict.PENDING, "nothing of this log is anchored yet")
        checkpoint = self._checkpoint()
        root = self.chain.anchored_root(self._anchors(), evidence.log_id, checkpoint.size)
        if root is None:
            raise _tampered(f"no anchor of size {checkpoint.size} is on the chain")
        if root != checkpoint.root:
            raise _tampered(f"the chain holds another root for size {checkpoint.size}")
        return f"size {checkpoint.size}, root {checkpoint.root.hex()[:16]}…"

    # 8
    def inclusion(self) -> str:
        evidence = self.evidence
        if not evidence.records:
            return "no record claims to be anchored"
        checkpoint = self._checkpoint()
        for entry in evidence.records:
            try:
                leaf = leaf_hash(entry.raw)
                verify_inclusion(leaf, entry.index, checkpoint.size, entry.proof, checkpoint.root)
            except ProofError as error:
                raise _tampered(f"record at log index {entry.index}: {error}") from error
        return f"{len(evidence.records)} records"

    # 9
    def sequence(self) -> str:
        evidence = self.evidence
        records: list[Record] = []
        last_index, prev, time_ms = -1, None, 0
        for seq, entry in enumerate((*evidence.records, *evidence.tail)):
            try:
                record = decode_record(entry.raw)
            except canonical.CanonicalError as error:
                raise _tampered(f"record {seq}: {error}") from error
            of_session = (evidence.log_origin, evidence.workspace, evidence.session_id)
            if (record.log, record.workspace, record.stream) != of_session:
                raise _tampered(f"record {seq} is of another log or session")
            if (record.seq, record.prev) != (seq, prev) or entry.index <= last_index:
                raise _tampered(f"record {seq} does not follow the record before it")
            if record.time_ms < time_ms:
                raise _tampered(f"record {seq} is earlier than the record before it")
            last_index, prev, time_ms = entry.index, record.hash, record.time_ms
            records.append(record)
        if not records:
            raise _tampered("there is no record of the session's creation")
        if records[0].body.get("grant") != evidence.grant.to_json():
            raise _tampered("the session was created with another grant")
        self.records = records
        return f"{len(records)} records, unbroken"

    # 10
    def replayed(self) -> str:
        self._need_records()
        try:
            self.replay.feed(self.records)
        except ReplayError as error:
            raise _tampered(str(error)) from error
        return (
            f"{self.replay.decisions} decisions, {self.replay.allowed} allowed, "
            f"{format_usd(self.replay.captured_micro_usd)} captured"
        )

    # 11
    def life(self) -> str:
        self._need_records()
        kinds = {record.kind: record for record in self.records}
        token_id = self.evidence.token_id
        allowed = [
            record.time_ms
            for record in self.records
            if record.kind == "payment.decided" and record.body["decision"].get("allowed")
        ]
        if allowed and "session.registered" not in kinds:
            raise _tampered("payments were allowed before the session was registered")
        revocation = self.chain.revocation(self.registry, token_id)
        if revocation is None:
            return "not revoked on the chain"
        if "session.revoked" not in kinds:
            if allowed and allowed[-1] > revocation.block_time_s * 1000:
                raise _tampered("payments were allowed after the session was revoked on the chain")
            return f"revoked on the chain in block {revocation.block_number}, not yet in the log"
        return f"revoked on the chain in block {revocation.block_number}, and in the log"

    # 12
    def spends(self) -> str:
        found = self.chain.registration(self.registry, self.evidence.token_id)
        from_block = 0 if found is None else found.block_number
        spends = self.chain.spends(self.evidence.grant.session_key, from_block)
        if spends:
            raise _Failed(
                Verdict.UNBINDABLE,
                f"{len(spends)} on the chain without a record that names it, the first: "
                f"{spends[0].what} in transaction 0x{spends[0].tx_hash.hex()}",
            )
        return "the session's key moved nothing on the chain"

    # 13
    def tail(self) -> str:
        if count := len(self.evidence.tail):
            raise _Failed(Verdict.PENDING, f"the last {count} records are not anchored yet")
        return "every record is anchored"

    def _anchors(self) -> str:
        anchors = self.chain.anchors_of(self.registry)
        if anchors is None:
            raise _tampered(f"there is no session registry at {self.registry} on this chain")
        return anchors

    def _checkpoint(self) -> Checkpoint:
        try:
            checkpoint = open_note(self.evidence.checkpoint or "", self.evidence.log_verifier_key)
        except NoteError as error:
            raise _tampered(f"checkpoint: {error}") from error
        if checkpoint.origin != self.evidence.log_origin:
            raise _tampered("the checkpoint is of another log")
        return checkpoint

    def _need_records(self) -> None:
        if not self.records:
            raise _tampered("not possible, because the records are not in sequence")


def summary(report: Report) -> dict[str, Any]:
    """A report as JSON."""
    return {
        "verdict": report.verdict.name.lower(),
        "exit_code": report.verdict.value,
        "reason": report.reason,
        "checks": [
            {
                "number": check.number,
                "name": check.name,
                "verdict": check.verdict.name.lower(),
                "reason": check.reason,
            }
            for check in report.checks
        ],
    }
