"""The one place that opens a session's private key, and what it signs: nothing but a payment.

What is signed are the bytes of the record `payment.signed`, after it was committed, and only if it
says the same as the decision that allowed it. The signature is the same every time (RFC 6979), so
it is not kept: whoever asks again is given it again.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from engine.audit.binding import payment_nonce
from engine.audit.canonical import CanonicalError
from engine.audit.record import Record, decode_record, read_hex
from engine.chain.account import KeyAccount
from engine.db.database import Database
from engine.db.tables import Record as RecordRow
from engine.db.tables import SessionKey, table
from engine.errors import CannotStart, Unavailable
from engine.ledger.payment import Payment
from engine.payments.authorization import Authorization, TokenDomain
from engine.payments.terms import Terms
from engine.sessions.vault import Vault

_DAMAGE = (AttributeError, CanonicalError, KeyError, TypeError, ValueError)
_keys = table(SessionKey)
_records = table(RecordRow)


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs what the log says is to be signed."""

    database: Database
    vault: Vault

    def sign(
        self, payment: Payment, record_id: int, domain: TokenDomain
    ) -> tuple[Authorization, bytes]:
        """The authorization of a payment and its signature (65 bytes).

        `record_id` is that of its record `payment.signed`, which is committed.

        Raises:
            Unavailable: the records, or the session's key, are not what they have to be.
        """
        columns = _records.c.stream, _records.c.body
        own = _records.c.stream == payment.session_id, _records.c.seq == payment.number
        sealed = sa.select(_keys.c.sealed).where(_keys.c.session_id == payment.session_id)
        with self.database.reading() as connection:
            decided = connection.execute(sa.select(*columns).where(*own)).first()
            signed = connection.execute(
                sa.select(*columns).where(_records.c.id == record_id)
            ).first()
            key = connection.execute(sealed).scalar()
        try:
            if decided is None or signed is None or key is None:
                raise ValueError("a record of it, or the session's key, is missing")
            records = decode_record(decided.body), decode_record(signed.body)
            authorization = _authorization(payment, *records, domain)
            secret = self.vault.open(key, payment.session_id)
            if KeyAccount(secret).address.lower() != authorization.payer:
                raise ValueError("the session's key is of another address")
        except CannotStart as error:
            raise Unavailable(error.message, code="session_damaged") from error
        except _DAMAGE as error:
            raise Unavailable(
                f"payment {payment.id} cannot be signed: {error}", code="session_damaged"
            ) from error
        return authorization, authorization.sign(domain, secret)


def _authorization(
    payment: Payment, decided: Record, signed: Record, domain: TokenDomain
) -> Authorization:
    """What the record says, if the decision allowed exactly that.

    Raises:
        ValueError, KeyError, TypeError: it did not.
    """
    body, told = signed.body, decided.body
    terms = Terms.read(told["request"]["terms"])
    if (decided.kind, signed.kind) != ("payment.decided", "payment.signed"):
        raise ValueError("its records are of other kinds")
    if not told["payment"] == body["payment"] == payment.id or signed.stream != payment.session_id:
        raise ValueError("its records are of another payment")
    if told["decision"]["allowed"] is not True:
        raise ValueError("it was not allowed")
    agreed = terms.network, terms.asset, terms.pay_to, terms.amount
    if (body["network"], body["asset"], body["to"], body["amount"]) != agreed:
        raise ValueError("another payment is to be signed than was allowed")
    if terms.asset != f"eip155:{domain.chain_id}/erc20:{domain.token}":
        raise ValueError("the token is another")
    nonce = read_hex(body["nonce"], 32)
    if nonce != payment_nonce(decided.hash, read_hex(body["salt"], 32)):
        raise ValueError("its nonce does not belong to its decision")
    return Authorization(
        payer=body["from"],
        pay_to=terms.pay_to,
        amount=int(terms.amount),
        valid_after_s=body["valid_after_s"],
        valid_before_s=body["valid_before_s"],
        nonce=nonce,
    )
