"""The tools of `/mcp`, where the server does nothing on the network for whoever calls."""

from api.mcp.answers import SignedPayment, Verification
from api.mcp.arguments import EvidenceText, ToSign
from api.mcp.rest import SESSIONS, Refused, Rest, digits
from api.mcp.session_tools import SESSION_TOOLS, windows
from api.mcp.tool import Tool
from api.mcp.verifying import verification, verify_evidence


async def _pay(rest: Rest, asked: ToSign) -> SignedPayment:
    found = await rest.ask(
        "POST",
        f"{SESSIONS}/{asked.session_id}/x402",
        asked.model_dump(exclude={"session_id", "idempotency_key"}, exclude_none=True),
        idempotency_key=asked.idempotency_key,
    )
    payment = found.body
    if "payment_signature" not in payment:
        raise Refused(
            "payment_closed",
            f"the payment is {payment['state']}: there is nothing to sign any more",
            payment_id=payment["payment_id"],
        )
    terms = payment["terms"]
    return {
        "payment_id": payment["payment_id"],
        "amount_usd": digits(payment["amount_usd"]),
        "amount": terms["amount"],
        "network": payment["network"],
        "asset": payment["asset"],
        "pay_to": terms["pay_to"],
        "resource": terms["resource"],
        "method": terms["method"],
        "payment_signature": payment["payment_signature"],
        "valid_before_s": payment["valid_before_s"],
        "remaining": windows(payment),
    }


async def _verify(rest: Rest, asked: EvidenceText) -> Verification:
    return verification(
        (await rest.ask("POST", "/api/v1/evidence/verify", asked.model_dump())).body
    )


HTTP_TOOLS = (
    *SESSION_TOOLS,
    Tool(
        name="pay_x402",
        title="Sign what a 402 asks for",
        description=(
            "Pay what a server asked for with 402 (x402, scheme exact): give its payment "
            "requirements, and get the signed header with which to send the request again. This "
            "server asks for no URL in your name: sending the request is yours. The cheapest "
            "offer that the policy allows is held and signed; the same request has the same "
            "signature until it is known what became of it."
        ),
        arguments=ToSign,
        answer=SignedPayment,
        run=_pay,
        reads=False,
    ),
    verify_evidence(
        "Give the content of an evidence file (some 800 KB at most), and hear whether it holds by "
        "the chain and the registry that this server reads. For one of any length, or if you do "
        "not trust this server, run `tallystick verify`.",
        EvidenceText,
        _verify,
    ),
)
