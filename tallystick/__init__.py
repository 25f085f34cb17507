"""What people import and run: the clients, what pays for existing code, and the command."""

from typing import TYPE_CHECKING, Any

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
from tallystick.paying.order import Paid
from tallystick.paying.transports import AsyncPayingTransport, PayingTransport, paid

if TYPE_CHECKING:
    from tallystick.paying.adapter import PayingAdapter

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


def __getattr__(name: str) -> Any:
    """Only who wants the adapter imports requests."""
    if name == "PayingAdapter":
        from tallystick.paying.adapter import PayingAdapter

        return PayingAdapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
