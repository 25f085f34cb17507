"""Verify an evidence file: a numbered list of checks against the chain, and against nothing else.

 1  format        the file is canonical evidence of a version we know
 2  seal          the log's key signed the whole file
 3  chain         the file speaks of the chain and the registry that the auditor named
 4  registration  the registry holds this session key, with the hash of exactly this grant
 5  consent       the owner signed the grant (EIP-712, ERC-1271 or a passkey) or one that it is
                  delegated from and that allows no less, or the file says openly that nobody did
 6  log           the grant names this log, and the chain names this log's key
 7  anchor        the checkpoint is signed, the chain holds its size and root, and every anchor
                  since the registration is the beginning of the next (RFC 9162 section 2.1.4.2)
 8  inclusion     every record is under the anchored root (RFC 9162 section 2.1.3.2)
 9  sequence      the session's records are complete, chained, in order, and what is withheld of
                  them is what the file says is
10  replay        every decision comes out the same from the records alone, as far as they are
                  not withheld
11  life          registration, revocation, lowered limits, times and end in the records fit what
                  the chain says
12  spends        everything the session's key moved on any chain is the settlement of one payment
                  that an allowed record bears out, and what was captured did settle
13  tail          nothing is left that no anchor covers yet

A check that rests on one that failed is not made; its row says so, with the verdict of the other.

Pure: the chain comes in through `ChainView`. What the caller must still do: get the registry's
address and an RPC URL from somewhere other than the file, and better two of them: an RPC that
leaves out events hides them (`engine.evidence.agreeing`). On other chains than those that are given
the key can have moved anything.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property

from cryptography.exceptions import InvalidSignature

from engine.audit.anchored import check_anchors, check_places, moved
from engine.audit.chain import (
    CLOCKS_DIFFER_MS,
    Anchoring,
    ChainSilent,
    ChainView,
    Registration,
)
from engine.audit.checkpoint import Checkpoint, NoteError, open_note, public_key_of
from engine.audit.consent import check_consent
from engine.audit.delegation import check_line, check_unsigned, token_id_of
from engine.audit.evidence import Evidence, EvidenceError, log_salt, open_evidence
from engine.audit.examination import Auditor, Examination, Found
from engine.audit.life import Life
from engine.audit.pieces import Source
from engine.audit.proofs import Inclusions
from engine.audit.replay import Replay
from engine.audit.report import (
    Check,
    Finding,
    Report,
    Verdict,
    counted,
    make_check,
    summary,
    tampered,
)
from engine.audit.sequence import Walk
from engine.audit.spends import Horizon
from engine.grant import Domain

__all__ = ["Check", "Report", "Verdict", "examine", "summary", "verify"]

_NEEDS = {
    "registration": ("chain",),
    "consent": ("registration",),
    "log": ("chain",),
    "anchor": ("registration", "log"),
    "inclusion": ("anchor",),
    "replay": ("sequence",),
    "life": ("registration", "anchor", "replay"),
    "spends": ("registration",),
    "tail": ("anchor",),
}
"""The checks that each check rests on. What reads the file alone is made though others failed."""


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """No cyclic garbage arises here; to look for it among the records is a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def verify(
    file: Source,
    chain: ChainView,
    *,
    registry: str,
    anchors: str | None = None,
    chain_id: int | None = None,
    networks: Mapping[str, ChainView] | None = None,
) -> Report:
    """Verify evidence against the chain.

    `registry` is the auditor's, never the file's; so are `anchors` and `chain_id`, where they are
    given: the registry names the one, the endpoint the other. `networks` are further chains on
    which the session may have paid, by CAIP-2 id. Never raises for anything the file holds or a
    chain answers.
    """
    return examine(
        file, chain, registry=registry, anchors=anchors, chain_id=chain_id, networks=networks
    ).report


@_nothing_collected()
def examine(
    file: Source,
    chain: ChainView,
    *,
    registry: str,
    anchors: str | None = None,
    chain_id: int | None = None,
    networks: Mapping[str, ChainView] | None = None,
) -> Examination:
    """As `verify`; answers what was found on the way, too."""
    try:
        evidence = open_evidence(file)
        auditor = Auditor(registry.lower(), anchors and anchors.lower(), chain_id)
        run = _Run(evidence, chain, auditor, networks or {})
    except EvidenceError as error:
        return Examination(Report((make_check(1, "format", Verdict.TAMPERED, str(error)),)))
    read = f"{len(file)} bytes of canonical evidence"
    if evidence.withheld:
        read += f"; withheld: {', '.join(sorted(evidence.withheld))}"
    checks = [make_check(1, "format", Verdict.VERIFIED, read)]
    by_name: dict[str, Check] = {}
    for name, step in run.steps():
        needed = (by_name[need] for need in _NEEDS.get(name, ()))
        failed = next((check for check in needed if check.stops), None)
        by_name[name] = _made(len(checks) + 1, name, step, failed)
        checks.append(by_name[name])
    return Examination(Report(tuple(checks)), evidence, run.found)


def _made(number: int, name: str, step: Callable[[], str], failed: Check | None) -> Check:
    if failed is not None:
        reason = f"not checked: it rests on the {failed.name} check"
        return make_check(number, name, failed.verdict, reason, made=False)
    try:
        return make_check(number, name, Verdict.VERIFIED, step())
    except Finding as finding:
        return make_check(number, name, finding.verdict, finding.reason)
    except ChainSilent as silence:
        return make_check(number, name, Verdict.UNAVAILABLE, str(silence))


class _Run:
    def __init__(
        self,
        evidence: Evidence,
        chain: ChainView,
        auditor: Auditor,
        networks: Mapping[str, ChainView],
    ) -> None:
        self.evidence = evidence
        self.chain = chain
        self.networks = networks
        self.auditor = auditor
        self.registry = auditor.registry
        self.found = Found()
        self.grant_hash = evidence.grant.hash()
        self.replay = Replay(evidence.grant, self.grant_hash, withheld=evidence.withheld)
        self._walk = Walk(evidence, self.replay, self._tree())

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
            key.verify(self.evidence.signature, self.evidence.sealed())
        except (NoteError, InvalidSignature):
            raise tampered("the log's key did not sign this file as it is") from None
        noted = len(self.evidence.discrepancies)
        note = f"; the operator's server noted discrepancies ({noted})" if noted else ""
        return f"signed by {self.evidence.log_origin}{note}"

    # 3
    def same_chain(self) -> str:
        evidence, found = self.evidence, self.auditor.check_endpoint(self.chain)
        if found != evidence.chain_id:
            raise tampered(f"the file is of chain {evidence.chain_id}, the endpoint of {found}")
        anchors = self._anchors
        if self.registry != evidence.registry:
            raise tampered(f"the file is of registry {evidence.registry}, not yours (--registry)")
        if anchors != evidence.anchors:
            raise tampered("the file names another anchor registry than the session registry")
        self.found.block_number = self.chain.block_number
        return f"chain {found}, registry {self.registry}, as of block {self.found.block_number}"

    # 4
    def registered(self) -> str:
        evidence = self.evidence
        if token_id_of(evidence.public_key) != evidence.token_id:
            raise tampered("the token id is not the hash of the public key")
        if "0x" + evidence.token_id[-20:].hex() != evidence.grant.session_key:
            raise tampered("the grant is for another session key")
        if self.grant_hash != evidence.grant_hash:
            raise tampered("the grant does not have the hash that the file names")
        found = self.found.registration = self._registration
        if found.grant_hash != self.grant_hash:
            raise tampered("the registry holds other parameters than the file's grant")
        told = evidence.registration
        if (told.block_number, told.tx_hash) != (found.block_number, found.tx_hash) or (
            found.log_index not in (None, told.log_index)
        ):
            raise moved("the registration", told.block_number, found.block_number)
        return f"in block {found.block_number}, transaction 0x{found.tx_hash.hex()}"

    # 5
    def consent(self) -> str:
        evidence = self.evidence
        found = self._registration
        domain = Domain(evidence.chain_id, self.registry)
        delegated = check_line(evidence.grant, evidence.ancestors, self.chain, domain)
        if evidence.owner_signature is None:
            if found.consent != "none":
                raise tampered(f"the chain records consent: {found.consent}; the file shows none")
            check_unsigned(evidence.consent, evidence.grant)
            if evidence.ancestors:
                return delegated
            return "none: an operator registered the session without the owner's signature"
        kind, signature = evidence.consent, evidence.owner_signature
        return check_consent(evidence.grant, kind, signature, self.chain, domain, found)

    # 6
    def log(self) -> str:
        if self.evidence.grant.audit_log != self.evidence.log_id:
            raise tampered("the grant names another log")
        salt = self.chain.log_opened(self._anchors, self.evidence.log_id)
        if salt is None:
            raise tampered("the anchor registry knows no such log")
        if salt != log_salt(self.evidence.log_verifier_key):
            raise tampered("the log was opened for another verifier key")
        return f"0x{self.evidence.log_id.hex()}"

    # 7
    def anchor(self) -> str:
        if self.evidence.checkpoint is None:
            evidence = self.evidence
            if self._walk.proven or evidence.consistency or evidence.anchored:
                raise tampered("records claim an anchor that the file does not name")
            raise Finding(Verdict.PENDING, "nothing of this log is anchored yet")
        checkpoint = self._checkpoint
        found = self._anchoring
        if found.root != checkpoint.root:
            raise tampered(f"the chain holds another root for size {checkpoint.size}")
        told, size = self.evidence.anchored, checkpoint.size
        anchors = [anchoring for anchoring in self._anchorings if anchoring.size <= size]
        since = self._registration.block_number
        older = check_anchors(told, self.evidence.consistency, anchors, since)
        check_places(told, anchors)
        note = f"size {found.size}, root {found.root.hex()[:16]}…, in block {found.block_number}"
        if older:
            note += f"; of one log with {counted(older, 'older anchor')}"
        if newer := len(self._anchorings) - len(anchors):
            note += f"; {counted(newer, 'newer anchor')} not in this file"
        self.found.anchorings = anchors
        return note

    # 8
    def inclusion(self) -> str:
        if not self._walk.proven:
            return "no record claims to be anchored"
        if self._walk.not_included is not None:
            raise self._walk.not_included
        return counted(self._walk.proven, "record")

    # 9
    def sequence(self) -> str:
        if self._walk.broken is not None:
            raise self._walk.broken
        return f"{counted(len(self._walk.times_ms), 'record')}, unbroken"

    # 10
    def replayed(self) -> str:
        refused = self._walk.not_replayed
        if refused is not None:
            raise tampered(str(refused)) from refused
        return self.replay.said()

    # 11
    def life(self) -> str:
        evidence = self.evidence
        life = Life(self.replay, self.chain, self._registration)
        life.check_registered()
        life.check_consented(evidence)
        dated = zip(self._walk.times_ms, self._walk.indexes[: self._walk.proven], strict=False)
        life.check_dates(dated, self._anchorings)
        anchored_in = None if evidence.checkpoint is None else self._anchoring.block_number
        return life.check_ends(evidence, self.found, anchored_in)

    # 12
    def spends(self) -> str:
        evidence, anchorings = self.evidence, self.found.anchorings
        horizon = Horizon(
            network=f"eip155:{evidence.chain_id}",
            registered_block=self._registration.block_number,
            anchored_block=anchorings[-1].block_number if anchorings else None,
            known_s=(evidence.made_ms - CLOCKS_DIFFER_MS) // 1000,
        )
        return self.found.spends.check(
            evidence.grant.session_key,
            self._walk.signed.payments(evidence.grant.session_key),
            self.chain,
            self.networks,
            horizon,
            {*evidence.grant.tokens, *self.replay.allowed_tokens},
        )

    # 13
    def tail(self) -> str:
        tail = self._walk.indexes[self._walk.proven :]
        size = 0 if self.evidence.checkpoint is None else self._checkpoint.size
        if any(index < size for index in tail):
            raise tampered("a record under the anchor has no proof")
        if tail:
            last = "record is" if len(tail) == 1 else f"{len(tail)} records are"
            raise Finding(Verdict.PENDING, f"the last {last} not anchored yet")
        return "every record is anchored"

    def _tree(self) -> Inclusions | None:
        """The log as the file's checkpoint has it; whether the chain has it so is another check."""
        try:
            return Inclusions(self._checkpoint.size, self._checkpoint.root)
        except Finding:
            return None

    @cached_property
    def _anchors(self) -> str:
        anchors = self.chain.anchors_of(self.registry)
        if anchors is None:
            # The auditor named it, so this says nothing about the file.
            raise Finding(
                Verdict.UNAVAILABLE,
                f"there is no SessionRegistry at {self.registry} on chain {self.chain.chain_id}: "
                f"is --registry right? The file names {self.evidence.registry}",
            )
        self.auditor.check_anchors(anchors)
        return anchors

    @cached_property
    def _registration(self) -> Registration:
        found = self.chain.registration(self.registry, self.evidence.token_id)
        if found is None:
            raise tampered("the registry knows no session of this key")
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
        raise tampered(f"no anchor of size {size} is on the chain")

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        try:
            checkpoint = open_note(self.evidence.checkpoint or "", self.evidence.log_verifier_key)
        except NoteError as error:
            raise tampered(f"checkpoint: {error}") from error
        if checkpoint.origin != self.evidence.log_origin:
            raise tampered("the checkpoint is of another log")
        return checkpoint
