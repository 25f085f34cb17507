"""What can be changed in a database without being found, and why; docs/fsck.md says the same."""

NOTHING_CHECKS = {
    "log_batches.seal": "only `--keys` can: the key-encryption key makes it, for a faster start",
    "outbox.delivered_ms": "when an event was delivered: only its receiver knows",
    "checkpoints.created_ms": "when a checkpoint was signed: a signed tree head has no time",
    "anchors.sent_ms": "when a transaction was sent: the chain knows when it was mined",
    "chain_transactions.sent_ms": "the same",
    "anchors.state": "mined or final, which a setting decides; whether it is mined is checked",
    "anchors.raw_tx": "that it is there: who sent a mined one may be unknown; what is there is",
    "anchors.replaced_json": "what was sent with another fee: all of it can be left out",
    "discrepancies.id": "what was seen to differ, and when; whatever still does is seen again",
    "discrepancies.workspace_id": "the same, if it is about no session",
    "discrepancies.kind": "the same; there is such a kind, of that severity",
    "discrepancies.subject": "the same, if it is about no session",
    "discrepancies.evidence_json": "the same",
    "discrepancies.first_seen_ms": "the same",
    "discrepancies.last_seen_ms": "the same",
    "discrepancies.resolved_ms": "the same",
    "settlements.from_block": "where the chain stood when a payment was signed",
    "settlements.state": "how far the chain is, until a record tells the end; it is read again",
    "settlements.tx_hash": "the same; until then it may only be what somebody reported",
    "settlements.block_number": "the same",
    "settlements.block_hash": "the same",
    "settlements.updated_ms": "when that was last seen",
    "settlements.compared_ms": "when reconciliation found the end right",
    "shared.time_ms": "what processes that share a database tell each other of this moment",
    "shared.read_ms": "the same",
    "shared.doubt": "the same",
    "shared.doubt_code": "the same",
    "shared.fault": "the same",
    "shared.wanted_size": "the same",
    "shared.budgets_version": "the same",
}
"""Columns whose values no record, hash or signature covers."""

NOTHING_MISSES = {
    "chain_transactions": "what was sent is kept to be sent again; without it another is signed",
    "chain_blocks": "the oldest and the newest that are kept: the newest is read again",
    "discrepancies": "whatever still differs is seen again",
    "checkpoints": "one that was never anchored: the next covers the same records",
}
"""Tables of which a row can be gone without being missed."""

ONLY_THE_CHAIN_CHECKS = {
    "chain_blocks.number": "the first and the last of the blocks that are kept",
    "chain_blocks.hash": "that of the last block",
    "chain_blocks.parent_hash": "that of the first block",
    "chain_blocks.timestamp_s": "the time of a block is in its hash, and the header is not kept",
    "chain_events.block_number": "where an event stands",
    "chain_events.log_index": "the same",
    "chain_events.block_hash": "that of a block that is not kept any more",
    "chain_events.tx_hash": "that of an event that no record names",
    "chain_events.args_json": "what no record repeats",
}
"""Columns that are held against the chain, and so only with `--rpc`.

So are rows of `chain_events` that no record names."""
