"""What people import and run: the client and the `tallystick` command."""

from tallystick.client import ApiError, Client

__all__ = ["ApiError", "Client"]
