"""Replay: budgets are rebuilt from the records alone, and every decision must come out the same.

Nothing is believed of a decision but its request and its time. The standing of the session follows
from the records of its life, the windows from the holds and captures before it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from engine.audit.record import Record
from engine.grant import Grant
from engine.policy.decide import decide
from engine.policy.decision import STANDING_OF_STATE, PaymentRequest, Standing
from engine.policy.windows import Entry, RollingWindows


class ReplayError(ValueError):
    """A record cannot have been made by the policy; the message says which and why."""


class Replay:
    """One session's budget as its records tell it; feed the records in order."""

    def __init__(self, grant: Grant, grant_hash: bytes) -> None:
        self._grant_hash = grant_hash.hex()
        self._policy = grant.policy()
        self._windows = RollingWindows()
        self._holds: dict[str, tuple[Entry, int]] = {}
        self._state = ""
        self.decisions = 0
        self.allowed = 0
        self.captured_micro_usd = 0

    def feed(self, records: Iterable[Record]) -> None:
        """Apply records.

        Raises:
            ReplayError: naming the first record that does not follow from those before it.
        """
        for record in records:
            try:
                self._apply(record)
            except (KeyError, TypeError, ValueError, AssertionError, AttributeError) as error:
                raise ReplayError(f"record {record.seq} ({record.kind}): {error}") from error

    def _apply(self, record: Record) -> None:
        body = record.body
        if record.kind.startswith("session."):
            if (self._state == "") != (record.kind == "session.created"):
                raise ValueError(
                    "the session's life does not begin with its creation, or begins twice"
                )
            if self._state == "revoked":
                raise ValueError("a revoked session cannot change any more")
            self._state = body["state"]
        elif record.kind == "payment.decided":
            self._decided(record, body)
        elif record.kind in ("payment.captured", "payment.voided", "payment.expired"):
            self._ended(record, body)
        else:
            raise ValueError("no such kind of record")

    def _decided(self, record: Record, body: Mapping[str, Any]) -> None:
        if body["grant_hash"] != self._grant_hash:
            raise ValueError("it was decided under another grant")
        asked = body["request"]
        request = PaymentRequest(
            amount=asked["amount_micro_usd"],
            merchant=asked["merchant"],
            token=asked["token"],
            chain=asked["chain"],
            permission=asked["permission"],
            token_priced=asked["token_priced"],
        )
        standing = Standing(body["standing"])
        if standing not in (STANDING_OF_STATE[self._state], Standing.MISMATCH):
            raise ValueError(f"the session was {self._state}, not {standing.value}")
        decision = decide(
            self._policy,
            standing,
            self._windows,
            request,
            record.time_ms,
            chain_time_ms=body["chain_time_ms"],
        )
        if decision.to_json() != body["decision"]:
            raise ValueError(
                f"the policy decides {decision.code} ({decision.rule}), "
                f"the record says {body['decision'].get('code')}, or differs in its facts"
            )
        self.decisions += 1
        if decision.allowed:
            self.allowed += 1
            if body["payment"] in self._holds:
                raise ValueError("the payment was decided before")
            entry = self._windows.add(record.time_ms, request.amount)
            self._holds[body["payment"]] = (entry, body["hold_expires_ms"])

    def _ended(self, record: Record, body: Mapping[str, Any]) -> None:
        if body["payment"] not in self._holds:
            raise ValueError("it ends a hold that is not open")
        entry, expires_ms = self._holds.pop(body["payment"])
        captured = body["captured_micro_usd"] if record.kind == "payment.captured" else 0
        if body["held_micro_usd"] != entry.amount or body["captured_micro_usd"] != captured:
            raise ValueError("its amounts are not those of the hold")
        if (record.time_ms >= expires_ms) != (record.kind == "payment.expired"):
            raise ValueError("the hold was over, or was not over yet")
        self._windows.advance(record.time_ms)
        self._windows.reduce(entry, captured)
        self.captured_micro_usd += captured
