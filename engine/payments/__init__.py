"""x402 payments: what a session's key signs, who has it mined, and what the chain shows of it."""
