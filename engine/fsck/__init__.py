"""Recomputes everything in a data directory from its raw records and says what does not agree."""
