"""Being paid by x402: one payment, one grant."""
