"""Whether what a session's key moved on the chain is bound to what its records allow."""

from collections.abc import Collection, Sequence

from engine.audit.chain import Spend
from engine.audit.report import Finding, Verdict


def check_spends(spends: Sequence[Spend], chain_id: int, named: Collection[str]) -> str:
    """Nothing may have moved without a record that names it; `named` are tokens (CAIP-19).

    A contract that nothing in the file names can be anybody's and say what they like. It can also
    be a token of great value, so what it says is told apart and never ignored. Raises `Finding`.
    """
    if not spends:
        return "the session's key moved nothing on the chain"
    told = [spend for spend in spends if spend.contract is not None]
    known = [spend for spend in told if f"eip155:{chain_id}/erc20:{spend.contract}" in named]
    first = (known or spends)[0]
    reason = f"{len(spends)} on the chain without a record that names it, the first: {first.what}"
    if first.tx_hash is not None:
        reason += f" in transaction 0x{first.tx_hash.hex()}"
    own = next((spend.what for spend in spends if spend.contract is None), None)
    if own is not None and own != first.what:
        reason += f"; {own}"
    if strange := len(told) - len(known):
        reason += (
            f"; {strange} told by contracts that neither the grant nor an allowed payment "
            "names: real tokens, or somebody's imitations"
        )
    raise Finding(Verdict.UNBINDABLE, reason)
