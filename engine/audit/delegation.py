"""The line of grants that a delegated grant comes from, as an evidence file shows it.

What the line shows of a session: each grant names the next by its hash and is owned by the same
wallet in the same workspace, and none allows less than the session's own. What the sessions of a
line spent together is in their own files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from engine.audit.chain import ChainView, Registration
from engine.audit.consent import check_consent
from engine.audit.report import Finding, shown, tampered
from engine.grant import NO_PARENT, Domain, Grant
from engine.policy.narrower import narrower

DEPTH_MAX = 4
"""Sessions in a line, the first included."""


@dataclass(frozen=True)
class Ancestor:
    """A session of the line. Where it is not on the chain, nothing has its token id.

    That is made of the public key (65 bytes) here: of another one the chain knows nothing, neither
    that the session was revoked nor what its limits are.
    """

    grant: Grant
    public_key: bytes
    consent: str
    """The kind of `owner_signature`, where there is one: see `engine.audit.consent`."""
    owner_signature: bytes | None

    @cached_property
    def token_id(self) -> bytes:
        """The identity of its key on the chain: 32 bytes."""
        return token_id_of(self.public_key)


def token_id_of(public_key: bytes) -> bytes:
    """The token id of an uncompressed public key of 65 bytes: keccak256 of its two coordinates."""
    from eth_utils.crypto import keccak

    return keccak(public_key[1:])


def check_line(grant: Grant, line: Sequence[Ancestor], chain: ChainView, domain: Domain) -> str:
    """Follow a grant to the first of its line; returns who consented to the nearest signed one.

    `line` has the parent first; it is empty where nobody delegated. Raises `Finding` for what does
    not fit, and `ChainSilent` as its chain does.
    """
    signed, child, policy = "", grant, grant.policy()
    for ancestor in line:
        above = ancestor.grant
        if above.hash() != child.parent:
            raise tampered("the file shows another grant than the one delegated from")
        if (above.owner, above.workspace) != (grant.owner, grant.workspace):
            raise tampered("a grant that it is delegated from is of another owner or workspace")
        if (wider := narrower(policy, above.policy())) is not None:
            raise tampered(f"it allows more than a grant that it is delegated from: {wider}")
        found = _registration(ancestor, chain, domain.registry)
        said = _consented(ancestor, chain, domain, found)
        signed, child = signed or said, above
    if child.parent != NO_PARENT or len(line) >= DEPTH_MAX:
        raise tampered("the line of grants that it is delegated from has no beginning")
    if signed:
        return f"delegated from a grant {signed}"
    return "delegated from a session that nobody signed for"


def check_unsigned(consent: str, grant: Grant) -> None:
    """Refuse another name for the consent to a grant that nobody signed than its own."""
    own = "none" if grant.parent == NO_PARENT else "delegated"
    if consent != own:
        raise tampered(
            f"the file names the consent {shown(consent)} without a signature; that of a grant "
            f"{'without' if own == 'none' else 'with'} a parent is then {shown(own)}"
        )


def _registration(ancestor: Ancestor, chain: ChainView, registry: str) -> Registration | None:
    """Where the chain has it, if it has."""
    if "0x" + ancestor.token_id[-20:].hex() != ancestor.grant.session_key:
        raise tampered("the public key of a session above is not that of its grant")
    found = chain.registration(registry, ancestor.token_id)
    if found is None:
        return None
    if found.grant_hash != ancestor.grant.hash():
        raise tampered("the registry holds other parameters for a session above")
    if (found.consent == "none") != (ancestor.owner_signature is None):
        shows = "has no signature" if ancestor.owner_signature is None else "has a signature"
        raise tampered(f"the chain records consent: {found.consent} of a session above; it {shows}")
    return found


def _consented(
    ancestor: Ancestor, chain: ChainView, domain: Domain, found: Registration | None
) -> str:
    """Who signed for it, and how; empty if nobody did."""
    if ancestor.owner_signature is None:
        check_unsigned(ancestor.consent, ancestor.grant)
        return ""
    signature, kind = ancestor.owner_signature, ancestor.consent
    try:
        return check_consent(ancestor.grant, kind, signature, chain, domain, found)
    except Finding as finding:
        reason = f"a grant that it is delegated from: {finding.reason}"
        raise Finding(finding.verdict, reason) from finding
