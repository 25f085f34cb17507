"""An argument that there is not is refused with the nearest that there is."""

from tests.mcp.hands import Hands


def test_the_nearest_argument_is_told(hands: Hands) -> None:
    heard = hands.refusal("simulate_payment", amount="1", merchant="x")
    assert (heard["code"], heard["field"]) == ("invalid_parameter", "merchant")
    assert heard["message"] == "merchant: is not a known field (is merchant_id meant?)"
