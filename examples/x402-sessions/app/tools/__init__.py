"""One tool a file: what it does, and what it costs."""
