"""Every way in which a payment does not lead to what was asked for.

TallystickError
├── PaymentRefused              nothing was paid by it, and nothing will be: pay anew
│   └── SignInRefused           somebody who signed in, and did not pay, is to pay
├── Conflict
│   ├── PaymentUsed             it was paid, and what it bought was handed out
│   └── PaymentForAnother       it was first presented for another request
└── Unavailable                 send the same payment again, and no other
    ├── PaymentPending          nobody knows yet whether it was paid
    └── PaymentInProgress       the same is being answered at this moment
"""

from engine.errors import Conflict, TallystickError, Unavailable


class PaymentRefused(TallystickError):
    """Nothing was paid. `code` is x402's reason, or the SDK's, where they have one."""

    code = "invalid_payload"


class SignInRefused(PaymentRefused):
    """A sign-in opens nothing. `code` is x402's reason where it has one."""

    code = "invalid_siwx"


class PaymentUsed(Conflict):
    """One payment, one grant; `details.transaction` is the payment's."""

    code = "payment_used"


class PaymentForAnother(Conflict):
    """A payment is for the request with which it came first."""

    code = "payment_for_another_request"


class PaymentPending(Unavailable):
    """Its outcome is unknown; `details.transaction` is what was sent, if that is known."""

    code = "payment_pending"


class PaymentInProgress(Unavailable):
    """Somebody else who sent the same is being answered."""

    code = "payment_in_progress"
