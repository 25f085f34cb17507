"""Bodies and queries about payment intents, and about session keys."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.rest.fields import AgentId, JsonObject, Merchant, PartUsd, PerhapsEmpty, Usd, printable
from api.rest.schemas import Body, PaymentBody
from engine.ledger.intent import State
from engine.ledger.intents import LIFE_MAX_S

DEFAULT_LIFE_S = 86_400

_Id = Annotated[str, printable(200)]


class CreateIntent(PaymentBody):
    """What somebody is to pay."""

    currency: Literal["USD"] = "USD"
    capture_method: Literal["automatic", "manual"] = Field(
        default="automatic", description="`manual`: hold the amount until it is captured"
    )
    agent_id: AgentId | None = Field(
        default=None, description="Whose sessions may confirm it; of any agent unless named"
    )
    agent_name: Annotated[str, printable(200)] | None = None
    expires_in_seconds: Annotated[int, Field(ge=1, le=LIFE_MAX_S)] = DEFAULT_LIFE_S


class ConfirmIntent(Body):
    """Whose session pays, and the secret that came with the intent."""

    client_secret: _Id
    customer_wallet: PerhapsEmpty = Field(description="Kept and shown; the session's counts")
    payment_type: Annotated[str, printable(100)] | None = None
    auto_gasless: bool | None = None
    metadata: JsonObject | None = Field(
        default=None, description="The payment's, if it has its own"
    )
    session_token: PerhapsEmpty | None = None


class CaptureIntent(Body):
    """How much of a held intent to spend; all of it if no amount is named."""

    amount: PartUsd = None


class IntentsQuery(BaseModel):
    """Which intents: in one status, older than one of them, from which on."""

    model_config = ConfigDict(extra="forbid")

    status: State | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    starting_after: _Id | None = None


class CheckPayment(Body):
    """An amount to try, and whom it would be paid to."""

    amount: Usd
    merchant_id: Merchant | None = None


class NamedSessionKey(Body):
    """A session by its id: its key is the session key that there is."""

    session_key_id: _Id
