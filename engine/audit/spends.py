"""The check of everything that a session's key moved, on every chain that is asked."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from engine.audit.chain import CLOCKS_DIFFER_MS, ChainSilent, ChainView
from engine.audit.report import BY_SEVERITY, Finding, Verdict, counted
from engine.audit.settlements import Bindings, Incident, Settlement, Span
from engine.audit.signed import SignedPayment, SignedPayments
from engine.policy.money import micro_usd_of

NAMED_MAX = 3
"""So many payments of one kind are named in the reason; the statement has all of them."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """What a file answers for on the session's own chain: from its registration to its anchor.

    Whatever settled up to the anchor's block was signed before the file was made. So was what
    settled up to `known_s`, the time when the file was made by the operator's word, less what
    clocks may differ by: it only ever asks the file for more.
    """

    network: str
    registered_block: int
    anchored_block: int | None
    known_s: int

    def span(self, network: str, blocks: Sequence[int], home: ChainView, view: ChainView) -> Span:
        """The blocks of a network among these (in order) that it answers for, by their times."""
        time_s: Callable[[int], int] = cache(view.block_time_s)
        first, anchored, known_s = self.registered_block, self.anchored_block, self.known_s
        if network != self.network and blocks:
            began_s = home.block_time_s(first)
            before = bisect_right(blocks, began_s - 1, key=time_s)
            first = blocks[before] if before < len(blocks) else blocks[-1] + 1
            if anchored is not None:
                known_s, anchored = max(known_s, home.block_time_s(anchored)), None
        later = [block for block in blocks if anchored is None or block > anchored]
        known = bisect_right(later, known_s, key=time_s)
        last = later[known - 1] if known else -1
        return Span(first, last if anchored is None else max(last, anchored))


@dataclass(slots=True)
class Spends:
    """What the check found; `asked` has the block as of which each network was looked at."""

    asked: dict[str, int] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    _unlike: dict[str, str] = field(default_factory=dict)
    """How the settlement of a payment differs from what was decided, where it does."""

    def check(
        self,
        key: str,
        signed: SignedPayments,
        home: ChainView,
        others: Mapping[str, ChainView],
        horizon: Horizon,
        named: Collection[str],
    ) -> str:
        """Nothing may have moved but what a signed payment allows. `named` are tokens (CAIP-19).

        `others` are the chains that can be asked beside the session's own, by CAIP-2 id. A network
        on which a payment was signed and that nobody can ask leaves the file pending.

        Raises:
            Finding: with the worst of what there is, which comes first in the reason.
        """
        networks = {horizon.network: home, **others}
        named = {*named, *(f"{each.network}/erc20:{each.contract}" for each in signed.payments)}
        notes = [(Verdict.TAMPERED, fault) for fault in signed.faults]
        if horizon.network in others:
            reason = f"{horizon.network} is the file's own chain: ask it by --rpc, not --network"
            raise Finding(Verdict.UNAVAILABLE, reason)
        by_network: dict[str, list[SignedPayment]] = {network: [] for network in networks}
        for payment in signed.payments:
            by_network.setdefault(payment.network, []).append(payment)
        for network, payments in by_network.items():
            try:
                self._look(network, key, payments, networks, horizon, named)
            except ChainSilent as silence:
                notes.append((Verdict.UNAVAILABLE, str(silence)))
        self.incidents.sort(key=lambda incident: BY_SEVERITY.index(incident.verdict))
        notes += self._notes_of_incidents(named)
        notes += self._notes_of_settlements()
        if not notes:
            return self._summary()
        worst = min((verdict for verdict, _ in notes), key=BY_SEVERITY.index)
        notes.sort(key=lambda note: BY_SEVERITY.index(note[0]))
        raise Finding(worst, "; ".join(note for _, note in notes))

    def _look(
        self,
        network: str,
        key: str,
        payments: Sequence[SignedPayment],
        networks: Mapping[str, ChainView],
        horizon: Horizon,
        named: Collection[str],
    ) -> None:
        view = networks.get(network)
        if view is None:
            self.settlements += [Settlement(payment, "not_checked") for payment in payments]
            return
        if f"eip155:{view.chain_id}" != network:
            raise ChainSilent(f"the endpoint for {network} serves eip155:{view.chain_id}")
        self.asked[network] = view.block_number
        bindings = Bindings(network, view.spends(key), payments)
        blocks = sorted({stray.block_number or 0 for _, stray, _ in bindings.strays})
        span = horizon.span(network, blocks, networks[horizon.network], view)
        self.incidents += bindings.incidents(named, span)
        time_s = view.block_time_s(view.block_number) if payments else 0
        found = [bindings.settlement(payment, time_s) for payment in payments]
        self.settlements += found
        time_of, decimals_of = cache(view.block_time_s), cache(view.decimals)
        for each in found:
            if each.state == "settled":
                settled_s = time_of(each.block_number or 0)
                unlike = _unlike(each.payment, settled_s, decimals_of(each.payment.contract))
                if unlike is not None:
                    self._unlike[each.payment.payment] = unlike

    def _notes_of_incidents(self, named: Collection[str]) -> list[tuple[Verdict, str]]:
        """One note of all incidents that weigh alike, the worst first."""
        notes = []
        for verdict in (Verdict.TAMPERED, Verdict.UNBINDABLE, Verdict.PENDING):
            found = [incident for incident in self.incidents if incident.verdict is verdict]
            if not found:
                continue
            note = f"{len(found)} on the chain without a record that allows it"
            if verdict is Verdict.PENDING:
                note = (
                    f"{len(found)} on the chain since this file was anchored: ask for a newer one"
                )
            note += f", the first: {found[0].what}"
            own = [each.what for each in found[1:] if each.kind == "transactions"]
            strange = [each for each in found if _is_strange(each, named)]
            if strange:
                own.append(
                    f"{len(strange)} told by contracts that neither the grant nor an allowed "
                    "payment names: real tokens, or somebody's imitations"
                )
            notes.append((verdict, "; ".join((note, *own))))
        return notes

    def _notes_of_settlements(self) -> list[tuple[Verdict, str]]:
        notes = []
        by_state: dict[str, list[str]] = {}
        for each in self.settlements:
            payment = each.payment.payment
            state = self._unlike.get(payment) or _contradiction(each, self.asked) or each.state
            by_state.setdefault(state, []).append(payment)
        for (verdict, state), said in _SAID.items():
            if payments := by_state.get(state):
                names = ", ".join(payments[:NAMED_MAX]) + ", …" * (len(payments) > NAMED_MAX)
                notes.append((verdict, f"{said} ({len(payments)}): {names}"))
        silent = sorted({s.payment.network for s in self.settlements if s.state == "not_checked"})
        if silent:
            endpoints = " ".join(f"--network {network}=URL" for network in silent)
            notes.append((Verdict.PENDING, f"not checked: {', '.join(silent)} ({endpoints})"))
        return notes

    def _summary(self) -> str:
        if not self.settlements:
            return "the session's key moved nothing on the chain"
        settled = sum(each.state == "settled" for each in self.settlements)
        said = f"{counted(settled, 'payment')} on {', '.join(self.asked)}, each by its record's "
        said += "nonce"
        accepted = sum(each.state == "accepted" for each in self.settlements)
        if lapsed := len(self.settlements) - settled - accepted:
            said += f"; {lapsed} can not settle any more"
        if accepted:
            said += f"; {accepted} spent by an operator's word"
        return said


_SAID = {
    (Verdict.TAMPERED, "missing"): "captured in the records and not on the chain",
    (Verdict.TAMPERED, "freed"): "given back in the records and settled on the chain",
    (Verdict.TAMPERED, "told_otherwise"): "settled with another amount or payee than told",
    (Verdict.TAMPERED, "untimely"): "settled when its records do not allow it",
    (Verdict.TAMPERED, "undercounted"): "counted as less than its tokens are",
    (Verdict.PENDING, "ahead"): "captured in a later block than the endpoint has",
    (Verdict.PENDING, "moved"): "settled elsewhere than the file says: ask for a new one",
    (Verdict.PENDING, "open"): "signed and not settled yet",
}


def _contradiction(found: Settlement, asked: Mapping[str, int]) -> str | None:
    """How the records contradict what a chain shows of a payment; None where they do not."""
    payment, told = found.payment, found.payment.told
    if found.state == "missing" and told is not None:
        return "ahead" if told.block_number > asked[payment.network] else None
    if found.state != "settled" or payment.ended in (None, "accepted"):
        return None
    if payment.ended != "captured":
        return "freed"
    if told is None:
        return None
    token = payment.network, payment.contract, payment.to, payment.amount
    if (told.network, told.contract, told.to, told.amount) != token:
        return "told_otherwise"
    place = found.block_number, found.tx_hash
    return None if place == (told.block_number, told.tx_hash) else "moved"


def _unlike(payment: SignedPayment, settled_s: int, decimals: int) -> str | None:
    """What is wrong with a payment that settled at this time, in a token of so many decimals.

    The token took what was signed before its time was over (EIP-3009), and nothing was signed
    before it was decided: so no payment is dated into another window than it was made in.
    """
    dated_s = (payment.decided_ms - CLOCKS_DIFFER_MS) // 1000
    if not dated_s <= settled_s < payment.valid_before_s:
        return "untimely"
    try:
        least = micro_usd_of(payment.amount, decimals)
    except ValueError:
        return "undercounted"
    return "undercounted" if payment.counted_micro_usd < least else None


def _is_strange(incident: Incident, named: Collection[str]) -> bool:
    contract = incident.spend.contract
    return contract is not None and f"{incident.network}/erc20:{contract}" not in named
