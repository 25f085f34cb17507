"""A chain asked through several endpoints, of which each must give the same answer.

One endpoint can leave out events, or invent them. Where two disagree nobody can tell from here who
lies, so the answer is that there is none, and who said what. They need not have read equally far:
where they differ they are asked again as of the last block that all of them have.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from itertools import zip_longest
from typing import Any, TypeVar

from engine.audit.chain import Anchoring, ChainSilent, Lowering, Registration, Revocation, Spend
from engine.evidence.chain_view import GatewayView
from engine.grant import Grant

Answer = TypeVar("Answer")


class AgreeingView:
    """A `ChainView` over the views of one endpoint each, two or more."""

    def __init__(self, views: Sequence[GatewayView]) -> None:
        assert len(views) > 1
        self._views = views

    @property
    def chain_id(self) -> int:
        """See `ChainView`."""
        return self._agreed("the chain id", lambda view: view.chain_id)

    @property
    def block_number(self) -> int:
        """See `ChainView`: the last block that all have, which must be the same one to all."""
        lowest = min(_of(view, lambda view: view.block_number) for view in self._views)
        self._agreed(f"block {lowest}", lambda view: view.at(lowest).header.hash)
        return lowest

    def anchors_of(self, registry: str) -> str | None:
        """See `ChainView`."""
        return self._agreed("the anchor registry", lambda view: view.anchors_of(registry))

    def registration(self, registry: str, token_id: bytes) -> Registration | None:
        """See `ChainView`."""
        return self._agreed("the registration", lambda view: view.registration(registry, token_id))

    def revocation(self, registry: str, token_id: bytes) -> Revocation | None:
        """See `ChainView`."""
        return self._agreed("the revocation", lambda view: view.revocation(registry, token_id))

    def lowerings(self, registry: str, token_id: bytes, grant: Grant) -> Sequence[Lowering]:
        """See `ChainView`."""
        return self._agreed(
            "lowered limits", lambda view: view.lowerings(registry, token_id, grant)
        )

    def workspace_closing(
        self, registry: str, token_id: bytes, workspace: str
    ) -> Revocation | None:
        """See `ChainView`."""
        return self._agreed(
            "the closing of the workspace",
            lambda view: view.workspace_closing(registry, token_id, workspace),
        )

    def accepts_signature(
        self, wallet: str, digest: bytes, signature: bytes, block_number: int
    ) -> bool | None:
        """See `ChainView`. An endpoint that has pruned the state of that block has no say."""
        asked = wallet, digest, signature, block_number
        told = [view for view in self._views if view.accepts_signature(*asked) is not None]
        if not told:
            return None
        return self._agreed(
            "the wallet's consent", lambda view: view.accepts_signature(*asked), told
        )

    def log_opened(self, anchors: str, log_id: bytes) -> bytes | None:
        """See `ChainView`."""
        return self._agreed("the log", lambda view: view.log_opened(anchors, log_id))

    def anchorings(self, anchors: str, log_id: bytes) -> Sequence[Anchoring]:
        """See `ChainView`."""
        return self._agreed("the anchors", lambda view: view.anchorings(anchors, log_id))

    def block_time_s(self, block_number: int) -> int:
        """See `ChainView`."""
        return self._agreed(
            f"the time of block {block_number}", lambda view: view.block_time_s(block_number)
        )

    def spends(self, address: str) -> Sequence[Spend]:
        """See `ChainView`."""
        return self._agreed("what the key moved", lambda view: view.spends(address))

    def decimals(self, token: str) -> int:
        """See `ChainView`."""
        return self._agreed(f"the decimals of {token}", lambda view: view.decimals(token))

    def _agreed(
        self,
        what: str,
        question: Callable[[GatewayView], Answer],
        asked: Sequence[GatewayView] = (),
    ) -> Answer:
        """The one answer of all that are asked.

        Raises:
            ChainSilent: one does not answer, or two differ; it says who, and in what.
        """
        views = asked or self._views
        answers = [_of(view, question) for view in views]
        if not (other := _unlike_first(answers)):
            return answers[0]
        lowest = min(view.block_number for view in views)
        level = [_of(view.at(lowest), question) for view in views]
        if place := _unlike_first(level):
            field, one, another = _difference(level[0], level[place])
            said = f"{views[0].name} says {one}, {views[place].name} says {another}"
            raise ChainSilent(f"the endpoints disagree on {what}{field}: {said}")
        behind, ahead = sorted((views[0], views[other]), key=lambda view: view.block_number)
        raise ChainSilent(
            f"{behind.name} has read up to block {behind.block_number} only, and {ahead.name} "
            f"knows more of {what} since: ask again when both have"
        )


def _of(view: GatewayView, question: Callable[[GatewayView], Answer]) -> Answer:
    try:
        return question(view)
    except ChainSilent as silence:
        said = str(silence)
        raise ChainSilent(said if view.name in said else f"{view.name}: {said}") from silence


def _unlike_first(answers: Sequence[Any]) -> int:
    """The place of the first answer that differs from the first of all; 0 if none does."""
    return next((place for place, answer in enumerate(answers) if answer != answers[0]), 0)


def _difference(one: Any, another: Any) -> tuple[str, str, str]:
    """Where two answers differ first, and what each of them is there."""
    if is_dataclass(one) and type(one) is type(another):
        for field in fields(one):
            values = getattr(one, field.name), getattr(another, field.name)
            if values[0] != values[1]:
                return f" ({field.name.replace('_', ' ')})", _shown(values[0]), _shown(values[1])
    if isinstance(one, list) and isinstance(another, list):
        for number, pair in enumerate(zip_longest(one, another), 1):
            if pair[0] != pair[1]:
                where, first, second = _difference(*pair)
                return f", number {number}{where}", first, second
    return "", _shown(one), _shown(another)


def _shown(value: Any) -> str:
    if value is None:
        return "there is none"
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if is_dataclass(value):
        first = fields(value)[0].name
        return f"there is one ({first.replace('_', ' ')} {_shown(getattr(value, first))})"
    return str(value)
