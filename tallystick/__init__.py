"""What people import and run: the clients, what pays for existing code, and the command.

Each name is imported when it is first asked for: the command runs servers, too, and those start
without an HTTP client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tallystick.async_client import AsyncClient
    from tallystick.client import Client
    from tallystick.errors import (
        AnswerNotReadable,
        ApiError,
        NotPayable,
        PaymentDenied,
        PaymentError,
        PaymentNotAccepted,
        PaymentOutcomeUnknown,
        SessionNotActive,
    )
    from tallystick.paying.adapter import PayingAdapter
    from tallystick.paying.order import Paid
    from tallystick.paying.transports import AsyncPayingTransport, PayingTransport, paid
    from tallystick.receiving import WebhookNotVerified, verify_webhook
    from tallystick.session_manager import SessionManager
    from tallystick.wallet import Wallet

__all__ = [
    "AnswerNotReadable",
    "ApiError",
    "AsyncClient",
    "AsyncPayingTransport",
    "Client",
    "NotPayable",
    "Paid",
    "PayingAdapter",
    "PayingTransport",
    "PaymentDenied",
    "PaymentError",
    "PaymentNotAccepted",
    "PaymentOutcomeUnknown",
    "SessionManager",
    "SessionNotActive",
    "Wallet",
    "WebhookNotVerified",
    "paid",
    "verify_webhook",
]

_HOMES = {
    "AsyncClient": "async_client",
    "AsyncPayingTransport": "paying.transports",
    "Client": "client",
    "Paid": "paying.order",
    "PayingAdapter": "paying.adapter",
    "PayingTransport": "paying.transports",
    "SessionManager": "session_manager",
    "Wallet": "wallet",
    "WebhookNotVerified": "receiving",
    "paid": "paying.transports",
    "verify_webhook": "receiving",
}
"""Where a name is that is not among the errors."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
