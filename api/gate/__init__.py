"""The paid gate: routes that cost something, and what payers store, over HTTP."""
