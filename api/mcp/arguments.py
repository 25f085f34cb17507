"""What the tools take. Names and meanings are those of the REST API, so that its refusals fit."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from api.mcp.rest import OWN
from api.mcp.tool import Arguments

_AMOUNT_PATTERN = r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?$"


def _decimal_text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError('takes dollars as a decimal string, such as "12.50"')  # noqa: TRY004
    return value


Dollars = Annotated[
    str,
    BeforeValidator(_decimal_text),
    WithJsonSchema({"type": "string", "pattern": _AMOUNT_PATTERN}),
]
"""An amount as exact text; whether it is one is for the API to say."""
MaxAmount = Annotated[Dollars | None, Field(description="Dollars; what costs more is not bought")]

_IDENTIFIER = r"^[0-9A-Za-z_]{1,64}$"  # nothing that would lead to another path of the API

SessionId = Annotated[
    str,
    Field(pattern=_IDENTIFIER, description="`self` is the session whose token is used"),
]
IdempotencyKey = Annotated[
    str | None,
    Field(
        pattern=r"^[!-~]{1,255}$",
        description="The same key never pays twice. Take the one that an error names to ask again",
    ),
]


class Nothing(Arguments):
    """No arguments."""


class WhichSession(Arguments):
    """Which session."""

    session_id: SessionId = OWN


class Payment(Arguments):
    """A payment, as it would be asked for."""

    amount: Annotated[Dollars, Field(description='Dollars as text, such as "12.50"')]
    merchant_id: Annotated[str | None, Field(description="Who is to be paid")] = None
    token: Annotated[str | None, Field(description="USDC unless named")] = None
    chain: Annotated[
        str | None, Field(description="CAIP-2 id; the server's own chain unless named")
    ] = None


class PaymentOfSession(Payment):
    """A payment of one session."""

    session_id: SessionId = OWN


class PaymentToApprove(Payment):
    """A payment that needs an approval."""

    description: Annotated[str | None, Field(description="What it is for; operators read it")] = (
        None
    )


class WhichApproval(Arguments):
    """Which approval."""

    approval_id: Annotated[
        str, Field(pattern=_IDENTIFIER, description="As request_approval or a denial named it")
    ]


class ToSign(Arguments):
    """What a 402 answer asks for, and the request that it answered."""

    payment_required: Annotated[
        dict[str, Any] | str,
        Field(description="x402's PaymentRequired (version 2), or the value of its header"),
    ]
    resource: Annotated[
        str, Field(description="The URL that was asked for; of a paid MCP tool, its server's")
    ]
    method: Annotated[str, Field(description="The method of that request")] = "GET"
    body_sha256: Annotated[
        str | None,
        Field(description="SHA-256 of that request's body in hexadecimal, if it had one"),
    ] = None
    max_amount: MaxAmount = None
    idempotency_key: IdempotencyKey = None
    session_id: SessionId = OWN


class EvidenceText(Arguments):
    """An evidence file."""

    evidence: Annotated[str, Field(description="The content of the file, unchanged")]
