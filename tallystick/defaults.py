"""What a client and the command take where nothing else is said."""

DEFAULT_URL = "http://127.0.0.1:8402"
"""Where `tallystick serve` listens."""
