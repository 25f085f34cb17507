"""In any order of faults it is paid once and told once; `any_order.py` has what is drawn."""

from pathlib import Path

from engine.chain.embedded import EmbeddedChain
from tests.payments.any_order import check_any_order, forgetful


def test_in_any_order_of_faults_it_is_paid_once_and_told_once(
    embedded: EmbeddedChain, tmp_path: Path
) -> None:
    with forgetful(tmp_path, embedded) as till:
        check_any_order(till, examples=5, drawn_from=7)
