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
11  life          registration, revocation, times and end in the records fit what the chain says
12  spends        everything the session's key moved on the chain is bound to an allowed record
13  tail          nothing is left that no anchor covers yet

Pure: the chain comes in through `ChainView`. What the caller must still do: get the registry's
address and an RPC URL from somewhere other than the file. An RPC that leaves out events hides them.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from cryptography.exceptions import InvalidSignature

from engine.audit import canonical
from engine.audit.chain import Anchoring, ChainSilent, ChainView, Registration
from engine.audit.checkpoint import Checkpoint, NoteError, open_note, public_key_of
from engine.audit.evidence import Evidence, EvidenceError, log_salt, parse_evidence, seal_message
from engine.audit.merkle import leaf_hash
from engine.audit.proofs import ProofError, verify_inclusion
from engine.audit.record import Record, decode_record
from engine.audit.replay import Replay, ReplayError
from engine.audit.report import Check, Report, Verdict, make_check, summary
from engine.grant import Domain
from engine.policy.money import format_usd

__all__ = ["Check", "Report", "Verdict", "summary", "verify"]

CLOCKS_DIFFER_MS = 15 * 60_000
"""How far the clocks of an honest operator and of the chain may be apart."""
REVOCATION_SEEN_MS = 10 * 60_000
"""An engine that has not read the chain for five minutes decides no more; blocks may be late."""
END_RECORDED_MS = 24 * 3_600_000
"""By then the log holds the end of a session, and of a hold, that is over."""


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
        return Report((make_check(1, "format", Verdict.TAMPERED, str(error)),))
    checks = [make_check(1, "format", Verdict.VERIFIED, f"{len(file)} bytes of canonical evidence")]
    run = _Run(evidence, chain, registry.lower())
    for number, (name, step) in enumerate(run.steps(), start=2):
        try:
            checks.append(make_check(number, name, Verdict.VERIFIED, step()))
        except _Failed as failed:
            checks.append(make_check(number, name, failed.verdict, failed.reason))
        except ChainSilent as silence:
            checks.append(make_check(number, name, Verdict.UNAVAILABLE, str(silence)))
    return Report(tuple(checks))


class _Run:
    def __init__(self, evidence: Evidence, chain: ChainView, registry: str) -> None:
        self.evidence = evidence
        self.chain = chain
        self.registry = registry
        self.grant_hash = evidence.grant.hash()
        self.records: list[Record] = []
        self.replay: Replay | None = None

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
        found = self.chain.chain_id
        if found != self.evidence.chain_id:
            raise _tampered(f"the file is of chain {self.evidence.chain_id}, this is {found}")
        if self.registry != self.evidence.registry:
            raise _tampered(f"the file is of registry {self.evidence.registry}, not yours")
        if self._anchors != self.evidence.anchors:
            raise _tampered("the file names another anchor registry than the session registry")
        return f"chain {found}, registry {self.registry}"

    # 4
    def registered(self) -> str:
        from eth_utils.crypto import keccak

        evidence = self.evidence
        if (
            evidence.public_key[:1] != b"\x04"
            or keccak(evidence.public_key[1:]) != evidence.token_id
        ):
            raise _tampered("the token id is not the hash of the public key")
        if "0x" + evidence.token_id[-20:].hex() != evidence.grant.session_key:
            raise _tampered("the grant is for another session key")
        if self.grant_hash != evidence.grant_hash:
            raise _tampered("the grant does not have the hash that the file names")
        found = self._registration
        if found.grant_hash != self.grant_hash:
            raise _tampered("the registry holds other parameters than the file's grant")
        return f"in block {found.block_number}, transaction 0x{found.tx_hash.hex()}"

    # 5
    def consent(self) -> str:
        evidence = self.evidence
        found = self._registration
        if evidence.owner_signature is None:
            if found.consent != "none" or evidence.consent != "none":
                raise _tampered("the chain records a consent that the file does not show")
            return "none: an operator registered the session without the owner's signature"
        try:
            domain = Domain(evidence.chain_id, self.registry)
            signer = evidence.grant.signer(evidence.owner_signature, domain)
        except ValueError as error:
            raise _tampered(str(error)) from error
        if signer != evidence.grant.owner:
            raise _tampered(f"the grant was signed by {signer}, not by its owner")
        if (found.consent, evidence.consent) != ("eip712", "eip712"):
            raise _tampered(f"the chain records consent: {found.consent}")
        return f"signed by {signer} (EIP-712)"

    # 6
    def log(self) -> str:
        if self.evidence.grant.audit_log != self.evidence.log_id:
            raise _tampered("the grant names another log")
        salt = self.chain.log_opened(self._anchors, self.evidence.log_id)
        if salt is None:
            raise _tampered("the anchor registry knows no such log")
        if salt != log_salt(self.evidence.log_verifier_key):
            raise _tampered("the log was opened for another verifier key")
        return f"0x{self.evidence.log_id.hex()}"

    # 7
    def anchor(self) -> str:
        if self.evidence.checkpoint is None:
            if self.evidence.records:
                raise _tampered("records claim an anchor that the file does not name")
            raise _Failed(Verdict.PENDING, "nothing of this log is anchored yet")
        checkpoint = self._checkpoint
        found = self._anchoring
        if found.root != checkpoint.root:
            raise _tampered(f"the chain holds another root for size {checkpoint.size}")
        newer = sum(anchoring.size > checkpoint.size for anchoring in self._anchorings)
        note = f"; {newer} newer anchors are not in this file" if newer else ""
        return (
            f"size {found.size}, root {found.root.hex()[:16]}…, in block {found.block_number}{note}"
        )

    # 8
    def inclusion(self) -> str:
        evidence = self.evidence
        if not evidence.records:
            return "no record claims to be anchored"
        checkpoint = self._checkpoint
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
        of_session = (evidence.log_origin, evidence.workspace, evidence.session_id)
        records: list[Record] = []
        last_index, prev, time_ms = -1, None, 0
        for seq, entry in enumerate((*evidence.records, *evidence.tail)):
            try:
                record = decode_record(entry.raw)
            except canonical.CanonicalError as error:
                raise _tampered(f"record {seq}: {error}") from error
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
        created = {name: records[0].body.get(name) for name in ("grant", "type", "label")}
        grant = evidence.grant.to_json()
        if canonical.encode(created) != canonical.encode(
            {"grant": grant, "type": evidence.session_type, "label": evidence.label}
        ):
            raise _tampered("the session was created with another grant, type or label")
        if evidence.grant.workspace != evidence.workspace:
            raise _tampered("the grant is for another workspace")
        self.records = records
        return f"{len(records)} records, unbroken"

    # 10
    def replayed(self) -> str:
        if not self.records:
            raise _tampered("not possible, because the records are not in sequence")
        replay = Replay(self.evidence.grant, self.grant_hash)
        try:
            replay.feed(self.records)
        except ReplayError as error:
            raise _tampered(str(error)) from error
        self.replay = replay
        return (
            f"{replay.decisions} decisions, {len(replay.allowed_ms)} allowed, "
            f"{format_usd(replay.captured_micro_usd)} captured"
        )

    # 11
    def life(self) -> str:
        replay = self.replay
        if replay is None:
            raise _tampered("not possible, because the records do not replay")
        if replay.allowed_unregistered:
            raise _tampered("payments were allowed before the session was registered")
        recorded = replay.registration
        tx_hash = "0x" + self._registration.tx_hash.hex()
        if recorded is not None and recorded.get("tx_hash") != tx_hash:
            raise _tampered("the records name another registration than the chain's")
        self._check_times()
        over_ms = self.evidence.grant.valid_until_s * 1000
        said = "not revoked on the chain"
        revocation = self.chain.revocation(self.registry, self.evidence.token_id)
        if revocation is not None:
            revoked_ms = revocation.block_time_s * 1000
            over_ms = min(over_ms, revoked_ms)
            late = len(replay.allowed_ms) - bisect_right(replay.allowed_ms, revoked_ms)
            if late and replay.allowed_ms[-1] > revoked_ms + REVOCATION_SEEN_MS:
                raise _tampered("payments were allowed after the session was revoked on the chain")
            known = "and" if replay.state == "revoked" else "not yet"
            said = f"revoked on the chain in block {revocation.block_number}, {known} in the log"
            if late:
                said += f"; {late} payments were allowed before the server had seen it"
        self._check_end(replay, over_ms)
        return said

    # 12
    def spends(self) -> str:
        spends = self.chain.spends(self.evidence.grant.session_key)
        if spends:
            tx_hash = spends[0].tx_hash
            where = "" if tx_hash is None else f" in transaction 0x{tx_hash.hex()}"
            raise _Failed(
                Verdict.UNBINDABLE,
                f"{len(spends)} on the chain without a record that names it, the first: "
                f"{spends[0].what}{where}",
            )
        return "the session's key moved nothing on the chain"

    # 13
    def tail(self) -> str:
        tail = self.evidence.tail
        size = 0 if self.evidence.checkpoint is None else self._checkpoint.size
        if any(entry.index < size for entry in tail):
            raise _tampered("a record under the anchor has no proof")
        if tail:
            raise _Failed(Verdict.PENDING, f"the last {len(tail)} records are not anchored yet")
        return "every record is anchored"

    def _check_times(self) -> None:
        """A record was made before the first anchor over it, so it cannot be dated after it."""
        latest_ms = 0
        for record, entry in zip(self.records, self.evidence.records, strict=False):
            if record.time_ms <= latest_ms:
                continue
            first = bisect_right(self._anchorings, entry.index, key=lambda found: found.size)
            if first < len(self._anchorings):
                block_time_s = self.chain.block_time_s(self._anchorings[first].block_number)
                latest_ms = block_time_s * 1000 + CLOCKS_DIFFER_MS
                if record.time_ms > latest_ms:
                    raise _tampered(f"record {record.seq} is dated after the anchor that holds it")

    def _check_end(self, replay: Replay, over_ms: int) -> None:
        """Left-out records are noticed at the latest when the session is over."""
        if self.evidence.checkpoint is None:
            return
        due_ms = [] if replay.state in ("revoked", "expired") else [over_ms]
        if replay.open_until_ms is not None:
            due_ms.append(replay.open_until_ms)
        anchored_ms = self.chain.block_time_s(self._anchoring.block_number) * 1000
        if due_ms and min(due_ms) + END_RECORDED_MS < anchored_ms:
            what = "the session" if min(due_ms) == over_ms else "a hold"
            raise _Failed(
                Verdict.PENDING, f"{what} was over before the anchor, but the records do not end it"
            )

    @cached_property
    def _anchors(self) -> str:
        anchors = self.chain.anchors_of(self.registry)
        if anchors is None:
            raise _tampered(f"there is no session registry at {self.registry}")
        return anchors

    @cached_property
    def _registration(self) -> Registration:
        found = self.chain.registration(self.registry, self.evidence.token_id)
        if found is None:
            raise _tampered("the registry knows no session of this key")
        return found

    @cached_property
    def _anchorings(self) -> Sequence[Anchoring]:
        return self.chain.anchorings(self._anchors, self.evidence.log_id)

    @cached_property
    def _anchoring(self) -> Anchoring:
        size = self._checkpoint.size
        for anchoring in self._anchorings:
            if anchoring.size == size:
                return anchoring
        raise _tampered(f"no anchor of size {size} is on the chain")

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        try:
            checkpoint = open_note(self.evidence.checkpoint or "", self.evidence.log_verifier_key)
        except NoteError as error:
            raise _tampered(f"checkpoint: {error}") from error
        if checkpoint.origin != self.evidence.log_origin:
            raise _tampered("the checkpoint is of another log")
        return checkpoint
