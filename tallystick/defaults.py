"""What a client and the command take where nothing else is said."""

DEFAULT_URL = "http://127.0.0.1:8402"
"""Where `tallystick serve` listens."""
SESSIONS_PAGE_MAX = 1000
PAGE_MAX = 100
"""How many entries a page of a list has at most; of sessions more."""
