"""Signing in with a wallet in place of paying: x402's extension `sign-in-with-x`.

What is signed is a message by CAIP-122 in the form of EIP-4361, by `personal_sign` (EIP-191). It
says for which host and URL, on which chain, and when; it is composed here once more from what came,
so that nothing counts but what was signed. Pure: what is allowed by it is `visits.py`'s.

https://github.com/coinbase/x402/blob/main/specs/extensions/sign-in-with-x.md
"""

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.address import is_checksum_address

from engine.selling.refusals import SignInRefused
from engine.storage.payer import Payer

EXTENSION = "sign-in-with-x"
AGE_S_MAX = 300
"""So long after it was issued a message is good."""
SKEW_S = 30
"""So far ahead of ours a clock may be by which a message was issued."""
STATEMENT = "Read what you stored here. This pays nothing."

_REQUIRED = ("domain", "address", "uri", "version", "chainId", "type", "nonce", "issuedAt")
_OPTIONAL = ("statement", "expirationTime", "notBefore", "requestId", "signatureScheme")
_LINES = (
    ("URI", "uri"),
    ("Version", "version"),
    ("Chain ID", "chainId"),
    ("Nonce", "nonce"),
    ("Issued At", "issuedAt"),
    ("Expiration Time", "expirationTime"),
    ("Not Before", "notBefore"),
    ("Request ID", "requestId"),
)
_CHARACTERS_MAX = 8_192
_RESOURCES_MAX = 16
_VISIBLE = re.compile(r"[!-~]+")
_NONCE = re.compile(r"[0-9A-Za-z]{8,128}")
_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{130}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a message has to name: where it is sent, and one of the chains (CAIP-2 ids)."""

    origin: str
    uri: str
    chains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignIn:
    """Who signed, and when that is good: from `begins_ms` until before `ends_ms`. `id` is of the
    nonce: what must not come twice."""

    payer: Payer
    id: str
    begins_ms: int
    ends_ms: int

    def check_time(self, now_ms: int) -> None:
        """Raises SignInRefused: it is not yet good, or no more."""
        if now_ms < self.begins_ms:
            raise SignInRefused("it was issued in the future", code="invalid_siwx_not_yet_valid")
        if now_ms >= self.ends_ms:
            raise SignInRefused("it is over: sign anew", code="invalid_siwx_expired")


def read_sign_in(told: Mapping[str, Any], wanted: Wanted) -> SignIn:
    """Read what came in SIGN-IN-WITH-X.

    1. Every field is known, and text of which a message can be made in one way only.
    2. It was made for this host, this URL, a chain of ours, and plain wallets.
    3. Its times and nonce are such.
    4. The address is who signed the message.

    The caller must still hold its time against a clock, and see that it comes once.

    Raises:
        SignInRefused: it is none, or for something else.
    """
    # 1
    fields = _fields(told)
    # 2
    domain = wanted.origin.partition("://")[2]
    for name, expected, code in (
        ("domain", domain, "invalid_siwx_domain_mismatch"),
        ("uri", wanted.uri, "invalid_siwx_uri_mismatch"),
        ("version", "1", SignInRefused.code),
        ("type", "eip191", "invalid_siwx_unsupported_chain"),
    ):
        if fields[name] != expected:
            raise SignInRefused(f"{name}: must be {expected}", code=code)
    chain = fields["chainId"]
    if chain not in wanted.chains:
        expected = " or ".join(wanted.chains)
        raise SignInRefused(f"chainId: must be {expected}", code="invalid_siwx_chain_id")
    if fields.get("signatureScheme", "eip191") != "eip191":
        raise SignInRefused("signatureScheme: only plain wallets (eip191) can sign in")
    # 3
    if not _NONCE.fullmatch(fields["nonce"]):
        raise SignInRefused("nonce: takes 8 to 128 letters and digits", code="invalid_siwx_nonce")
    issued_ms = _time_ms(fields, "issuedAt", "invalid_siwx_issued_at")
    begins_ms, ends_ms = issued_ms - SKEW_S * 1000, issued_ms + AGE_S_MAX * 1000
    if "expirationTime" in fields:
        ended_ms = _time_ms(fields, "expirationTime", "invalid_siwx_expiration_time")
        ends_ms = min(ends_ms, ended_ms)
    if "notBefore" in fields:
        begins_ms = max(begins_ms, _time_ms(fields, "notBefore", "invalid_siwx_not_before"))
    # 4
    address = fields["address"]
    if not is_checksum_address(address):
        raise SignInRefused("address: takes an address with its checksum (EIP-55)")
    text = message(fields, told.get("resources"))
    if _signer(text, told.get("signature")) != address:
        raise SignInRefused(
            "signature: takes the 65 bytes of a plain wallet, which must be the address",
            code="invalid_siwx_signature",
        )
    spent = hashlib.sha256(fields["nonce"].encode()).hexdigest()[:32]
    return SignIn(Payer(address, chain), spent, begins_ms, ends_ms)


def message(fields: Mapping[str, str], resources: list[str] | None = None) -> str:
    """The text that is signed (EIP-4361, "Message Format")."""
    chain = fields["chainId"].rpartition(":")[2]
    lines = [
        f"{fields['domain']} wants you to sign in with your Ethereum account:",
        fields["address"],
        "",
        *([fields["statement"]] if "statement" in fields else []),
        "",
    ]
    for label, name in _LINES:
        if name in fields:
            lines.append(f"{label}: {chain if name == 'chainId' else fields[name]}")
    if resources is not None:
        lines += ["Resources:", *(f"- {resource}" for resource in resources)]
    return "\n".join(lines)


def offer(wanted: Wanted, nonce: str, now_ms: int) -> dict[str, Any]:
    """What a 402 says of it, below `extensions`; a message has its `info`, and the chain."""
    text, time = {"type": "string"}, {"type": "string", "format": "date-time"}
    times = {"issuedAt", "expirationTime", "notBefore"}
    required = [*_REQUIRED, "signature"]
    names = [*required, *_OPTIONAL]
    return {
        "info": {
            "domain": wanted.origin.partition("://")[2],
            "uri": wanted.uri,
            "statement": STATEMENT,
            "version": "1",
            "nonce": nonce,
            "issuedAt": _text(now_ms),
            "expirationTime": _text(now_ms + AGE_S_MAX * 1000),
        },
        "supportedChains": [{"chainId": chain, "type": "eip191"} for chain in wanted.chains],
        "schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                **{name: time if name in times else text for name in names},
                "resources": {"type": "array", "items": {"type": "string", "format": "uri"}},
            },
            "required": required,
        },
    }


def _fields(told: Mapping[str, Any]) -> dict[str, str]:
    """Every field that is text, without the signature."""
    fields: dict[str, str] = {}
    for name in (*_REQUIRED, *_OPTIONAL):
        value = told.get(name)
        if value is None and name not in _REQUIRED:
            continue
        # A line end in a field would let one text be read as two messages.
        if (
            not isinstance(value, str)
            or len(value) > _CHARACTERS_MAX
            or not (value.isprintable() if name == "statement" else _is_word(value))
        ):
            raise SignInRefused(f"{name}: takes text of one line")
        fields[name] = value
    resources = told.get("resources")
    if resources is not None and not (
        isinstance(resources, list)
        and len(resources) <= _RESOURCES_MAX
        and all(isinstance(each, str) and _is_word(each) for each in resources)
    ):
        raise SignInRefused(f"resources: takes a list of at most {_RESOURCES_MAX} URIs")
    for name in told.keys() - {*_REQUIRED, *_OPTIONAL, "resources", "signature"}:
        raise SignInRefused(f"{str(name)[:100]!r} is not known")
    return fields


def _is_word(value: str) -> bool:
    return _VISIBLE.fullmatch(value) is not None


def _signer(text: str, signature: Any) -> str | None:
    if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
        return None
    try:
        signed = encode_defunct(text=text)
        return str(Account.recover_message(signed, signature=bytes.fromhex(signature[2:])))
    except Exception:  # noqa: BLE001 (whatever the library dislikes is no signature)
        return None


def _time_ms(fields: Mapping[str, str], name: str, code: str) -> int:
    """RFC 3339."""
    text = fields[name].upper()
    if _TIME.fullmatch(text):
        with suppress(ValueError, OverflowError):
            return int(datetime.fromisoformat(text).timestamp() * 1000)
    raise SignInRefused(f"{name}: takes a time by RFC 3339", code=code)


def _text(now_ms: int) -> str:
    time = datetime.fromtimestamp(now_ms // 1000, UTC)
    return f"{time.replace(tzinfo=None).isoformat()}.{now_ms % 1000:03}Z"
