"""Whether the ledger, the index and the chain say the same, and what is done where they do not."""
