"""Every store does what the model does; `any_order.py` has what is drawn."""

from tests.storage.any_order import check_any_order


def test_every_store_does_what_the_model_does(kind: str, place: str) -> None:
    check_any_order(kind, place, examples=25 if kind == "memory" else 6, steps=25)
