"""An agent that keeps what its callers pay it to keep."""
