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
    )
    from tallystick.paying.adapter import PayingAdapter
    from tallystick.paying.order import Paid
    from tallystick.paying.transports import AsyncPayingTransport, PayingTransport, paid

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
    "paid",
]

_HOMES = {
    "AsyncClient": "async_client",
    "AsyncPayingTransport": "paying.transports",
    "Client": "client",
    "Paid": "paying.order",
    "PayingAdapter": "paying.adapter",
    "PayingTransport": "paying.transports",
    "paid": "paying.transports",
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
