"""The audit log: canonical records, the Merkle tree over them, its proofs and its checkpoints."""
