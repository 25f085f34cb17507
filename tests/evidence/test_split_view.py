"""Two people are shown two histories of one log, each under the log's own key: whoever compares
what they were shown finds out."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.server import Server
from engine.audit.checkpoint import Checkpoint, open_note, sign, verifier_key
from engine.audit.compare import NoProofError, Outcome, Shown, compare, shown_by
from engine.audit.evidence import parse_evidence
from engine.audit.merkle import Tree, leaf_hash
from engine.audit.proofs import ProofError
from tests.cli.processes import Done, called, one_line
from tests.evidence.story import read, story
from tests.world import WORKSPACE, World

CONSISTENT, SPLIT_VIEW, NOT_SHOWN, UNKNOWN = 0, 1, 3, 4
USAGE = 2


@dataclass
class Operator:
    """A server, and the files that it gave away."""

    world: World
    url: str
    directory: Path

    @property
    def log_key(self) -> str:
        return self.world.engine.deployment.log_verifier_key

    def grown(self, payments: int) -> tuple[str, str]:
        """The files of evidence and checkpoint after one more session with so many payments."""
        view = self.world.session(mint_pkp=True)
        for dollars in range(1, payments + 1):
            self.world.pay(view, dollars)
        self.world.engine.anchor()
        self.world.engine.tick()
        evidence, checkpoint = self.directory / f"{view.id}.json", self.directory / view.id
        evidence.write_bytes(self.world.engine.evidence(WORKSPACE, view.id))
        answer = httpx.get(f"{self.url}/api/v1/log/checkpoint", trust_env=False)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        checkpoint.write_bytes(answer.content)
        return str(evidence), str(checkpoint)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Operator, Operator]]:
    """Two servers with one key: the second is a copy of the first as it was after its start."""
    one, other = (World(tmp_path_factory.mktemp("shown") / "data") for _ in range(2))
    with (
        Server(one.engine, "127.0.0.1", 0) as first,
        Server(other.engine, "127.0.0.1", 0) as second,
    ):
        operators = [
            Operator(world, server.url, tmp_path_factory.mktemp("given"))
            for world, server in ((one, first), (other, second))
        ]
        assert operators[0].log_key == operators[1].log_key
        yield operators[0], operators[1]
    one.engine.close()
    other.engine.close()


def compared(operator: Operator, *arguments: str) -> Done:
    return called("compare", *arguments, "--log-key", operator.log_key)


def test_two_servers_with_one_key_are_found_out(two: tuple[Operator, Operator]) -> None:
    one, other = two
    evidence, checkpoint = one.grown(2)
    older, _ = other.grown(2)
    size = open_note(Path(checkpoint).read_text(encoding="utf-8"), one.log_key).size
    assert size & (size - 1), "else no proof between two sizes would show it"

    same = compared(one, evidence, checkpoint)
    assert (same.returncode, same.stderr) == (CONSISTENT, "")
    assert "CONSISTENT: the same" in same.stdout

    found = compared(one, checkpoint, older)
    assert (found.returncode, found.stderr) == (SPLIT_VIEW, "")
    assert f"SPLIT VIEW: the log's key stands for two histories: the first {size}" in found.stdout

    # Of two sizes the larger one's server has to show it.
    newer, _ = other.grown(1)
    told = json.loads(compared(one, evidence, newer, "--json").stdout)
    assert told["outcome"] == "unknown"
    assert "name a server that has the log (--server)" in told["reason"]
    assert told["one"]["size"] == size < told["other"]["size"]
    asked = compared(one, checkpoint, f"{other.url}/api/v1/log/checkpoint", "--server", other.url)
    assert (asked.returncode, asked.stderr) == (SPLIT_VIEW, "")
    honest = compared(other, older, newer, "--server", other.url)
    assert (honest.returncode, honest.stderr) == (CONSISTENT, "")
    assert "begins with the one of" in honest.stdout

    # The other one's server cannot speak for a log that it has no more than the beginning of.
    wrong = compared(one, evidence, newer, "--server", one.url)
    assert wrong.returncode == UNKNOWN
    assert "the server has no proof: new_size: the newest checkpoint is of" in wrong.stdout
    one.grown(3)
    wrong = compared(one, evidence, newer, "--server", one.url)
    assert (wrong.returncode, wrong.stderr) == (NOT_SHOWN, "")
    assert "its log is not that of both" in wrong.stdout


def test_what_is_no_head_of_the_log_is_refused_by_name(
    two: tuple[Operator, Operator], tmp_path: Path
) -> None:
    one, _ = two
    _, checkpoint = one.grown(0)
    stranger = tmp_path / "stranger"
    head = open_note(Path(checkpoint).read_text(encoding="utf-8"), one.log_key)
    stranger.write_text(sign(head, head.origin, Ed25519PrivateKey.generate()), encoding="utf-8")
    words, none = tmp_path / "words", str(tmp_path / "none")
    words.write_text("{}", encoding="utf-8")
    for wrong, says in ((str(stranger), "not signed by"), (str(words), "not an evidence file")):
        said = one_line(compared(one, checkpoint, wrong), USAGE)
        assert said.startswith("invalid_parameter: OTHER: ")
        assert says in said
    assert "ONE: " in one_line(compared(one, none, checkpoint), USAGE)
    key = called("compare", checkpoint, checkpoint, "--log-key", "x")
    assert "--log-key: not a verifier key" in one_line(key, USAGE)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://[", "{url}/api/v1/nothing"])
def test_nobody_who_answers_is_no_verdict(two: tuple[Operator, Operator], url: str) -> None:
    one, _ = two
    evidence, checkpoint = one.grown(0)
    at = url.format(url=one.url)
    one_line(compared(one, checkpoint, at), UNKNOWN)
    older = read(Path(evidence).read_bytes())["anchors"][0]["size"]
    assert older
    asked = compared(one, checkpoint, one.grown(0)[1], "--server", at)
    assert (asked.returncode, asked.stderr) == (UNKNOWN, "")
    assert "the server has no proof: " in asked.stdout


def test_evidence_tells_by_itself_what_its_anchors_prove() -> None:
    """Its anchors are beginnings of its head by its own proofs: no server is asked."""
    told = story()
    document, evidence = read(told.small), parse_evidence(told.small)
    key = document["log"]["verifier_key"]
    seen, origin = shown_by(evidence, key), document["log"]["origin"]
    assert len(seen.roots) == len(document["anchors"]) == 3
    size, root = min(seen.roots.items())
    for its_root, expected in ((root, Outcome.CONSISTENT), (b"\x07" * 32, Outcome.SPLIT_VIEW)):
        head = open_note(sign(Checkpoint(origin, size, its_root), origin, told.log_key), key)
        short = Shown(head, {size: its_root})
        assert compare(short, seen).outcome is compare(seen, short).outcome is expected
    document["consistency"][0].pop()
    with pytest.raises(ProofError):
        shown_by(parse_evidence(told.seal(document)), key)
    document = read(told.small)
    document["anchors"][-1]["root"] = "07" * 32
    with pytest.raises(ProofError, match="do not lead to the checkpoint"):
        shown_by(parse_evidence(told.seal(document)), key)


def test_any_two_heads_and_any_proof() -> None:
    """Trees of up to 9 leaves that part somewhere: found wherever a proof can show it, and no
    honest pair is ever called a split view, whatever the proof."""
    key = Ed25519PrivateKey.generate()
    name = "log.test"
    verifier = verifier_key(name, key.public_key())
    leaves = [leaf_hash(bytes([number])) for number in range(9)]

    def seen(tree: Tree, size: int) -> Shown:
        return shown_by(sign(Checkpoint(name, size, tree.root(size)), name, key), verifier)

    honest = Tree(leaves)
    for parted in range(9):
        forked = Tree([*leaves[:parted], *(leaf_hash(b"x" + leaf) for leaf in leaves[parted:])])
        for old, new in combinations(range(1, 10), 2):
            pair = seen(honest, old), seen(forked, new)
            found = compare(*pair, forked.consistency_proof).outcome
            provable = Outcome.SPLIT_VIEW if old & (old - 1) else Outcome.NOT_SHOWN
            assert found is (Outcome.CONSISTENT if old <= parted else provable)
            same = seen(honest, old), seen(honest, new)
            assert compare(*same, honest.consistency_proof).outcome is Outcome.CONSISTENT
            liar = compare(*same, forked.consistency_proof).outcome
            assert liar is not Outcome.SPLIT_VIEW
    refused = compare(seen(honest, 3), seen(honest, 5), _refuse)
    assert refused.outcome is Outcome.UNKNOWN


def _refuse(_old: int, _new: int) -> list[bytes]:
    raise NoProofError("not here")
