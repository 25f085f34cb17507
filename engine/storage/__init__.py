"""Payer-scoped storage: a payer reads and writes what the same payer stored, and nothing else."""
