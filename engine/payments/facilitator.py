"""A local x402 facilitator: verifies and settles payments for resource servers, once each.

claims = Claims(directory / "facilitator.sqlite3")
facilitator = Facilitator([Relayer(gateway, account, claims)], claims)
facilitator.settle(payload, requirements)

The x402 SDK takes a second to import, so it is loaded when something is first asked of it.
"""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.payments.claims import Claims, Key
from engine.payments.follow_up import FollowUp, Known
from engine.payments.relay import Relayer
from engine.payments.served import Served

if TYPE_CHECKING:
    from x402 import x402FacilitatorSync
    from x402.schemas import (
        PaymentPayload,
        PaymentRequirements,
        SettleResponse,
        SupportedResponse,
        VerifyResponse,
    )

EVERYTHING = Served()


class Facilitator:
    """The SDK's facilitator over our chains and claims. Every method may be called in any thread.

    Each of `relayers` serves a network of its own; only those are advertised, and only x402's
    second version. What is neither verified nor settled is a 200 with a reason, as x402 has it;
    `Unavailable` means that the chain or the claims cannot be read, and nothing was sent.
    """

    def __init__(
        self, relayers: Sequence[Relayer], claims: Claims, served: Served = EVERYTHING
    ) -> None:
        self._relayers = {relayer.network: relayer for relayer in relayers}
        assert len(self._relayers) == len(relayers), "one relayer for each network"
        self._claims = claims
        self._follow_up = FollowUp(self._relayers, claims)
        self._served = served
        self._loading = threading.Lock()
        self._loaded: x402FacilitatorSync | None = None

    @property
    def networks(self) -> list[str]:
        """The CAIP-2 ids of the chains on which it settles."""
        return list(self._relayers)

    def supported(self) -> "SupportedResponse":
        """Scheme and networks, and who pays the gas there."""
        return self._sdk().get_supported()

    def verify(
        self, payload: "PaymentPayload", requirements: "PaymentRequirements"
    ) -> "VerifyResponse":
        """Whether a payment would be settled now; nothing is sent.

        Raises:
            Unavailable: nobody can see.
        """
        from x402.schemas import SchemeNotFoundError, VerifyResponse

        try:
            return self._sdk().verify(payload, requirements)
        except SchemeNotFoundError as error:
            return VerifyResponse(
                is_valid=False,
                invalid_reason="unsupported_scheme",
                invalid_message=str(error)[:200],
            )

    def settle(
        self, payload: "PaymentPayload", requirements: "PaymentRequirements"
    ) -> "SettleResponse":
        """Have a payment mined, and answer what its events show; see `ClaimedExactScheme`.

        Raises:
            Unavailable: nobody can see whether it may be settled; nothing was sent.
        """
        from x402.schemas import SchemeNotFoundError, SettleResponse

        try:
            return self._sdk().settle(payload, requirements)
        except SchemeNotFoundError as error:
            return SettleResponse(
                success=False,
                error_reason="unsupported_scheme",
                error_message=str(error)[:200],
                transaction="",
                network=payload.accepted.network,
            )

    def look_up(self, key: Key) -> Known | None:
        """How far the chain is with what was sent for an authorization; None if nothing was.

        Raises:
            Unavailable: nobody can see.
        """
        return self._follow_up.look_up(key)

    def tick(self) -> None:
        """Send what was settled and undone again, once; see `FollowUp`."""
        self._follow_up.tick()

    def close(self) -> None:
        """Close the claims; the chains belong to who opened them."""
        self._claims.dispose()

    def _sdk(self) -> "x402FacilitatorSync":
        # Only ever one: what it has in hand is known to nobody else.
        with self._loading:
            if self._loaded is None:
                from x402 import x402FacilitatorSync

                from engine.payments.exact_scheme import ClaimedExactScheme

                scheme = ClaimedExactScheme(
                    self._relayers, self._claims, self._follow_up, self._served
                )
                self._loaded = x402FacilitatorSync()
                self._loaded.register(self.networks, scheme)
            return self._loaded
