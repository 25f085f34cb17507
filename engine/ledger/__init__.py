"""The ledger: decisions, holds on budgets, and the one writer that makes them durable."""
