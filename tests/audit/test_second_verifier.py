"""A second verifier, in another language, judges evidence files as the first one does."""

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from engine.audit.evidence import render_evidence, seal_message
from engine.audit.merkle import Tree, leaf_hash
from engine.audit.verify import verify
from tests.audit.make_vectors import VECTORS, Log, chain, sealed
from tests.audit.test_disclosure import by_javascript
from tests.audit.vector_sessions import LOG_KEY, sessions, snapshot
from tests.evidence.story import Document, failed, read

INDEX = json.loads((VECTORS / "evidence.json").read_bytes())
NOT_MADE = ("consent",)
"""What it leaves to the first: it knows no EVM. Nor does it replay."""


def by_node(files: Sequence[tuple[bytes, Document]]) -> list[str | None]:
    """The check that each file fails by, under what its chain says; None where all hold."""
    lines = [json.dumps({"file": file.decode(), "chain": told}) for file, told in files]
    return [json.loads(line) for line in by_javascript(lines, "evidence.mjs")]


def test_it_judges_every_file_of_the_vectors_as_they_say() -> None:
    files, expected = [], {}
    for name, told in INDEX["files"].items():
        file = (VECTORS / "evidence" / f"{name}.json").read_bytes()
        files.append((file, INDEX["chains"][told["chain"]]))
        expected[name] = None if told["check"] in ("", *NOT_MADE) else told["check"]
    assert dict(zip(expected, by_node(files), strict=True)) == expected
    assert len(set(expected.values())) == 8


def grown(draw: random.Random, session: Any) -> Log:
    """The session's records somewhere in a larger log, which was anchored up to four times."""
    log = Log(session)
    records, size = log.records.hashes, draw.randrange(10, 600)
    log.indexes = sorted(draw.sample(range(size), len(records)))
    leaves = [leaf_hash(number.to_bytes(4)) for number in range(size)]
    for index, hashed in zip(log.indexes, records, strict=True):
        leaves[index] = hashed
    log.tree = Tree(leaves)
    sizes = sorted({size, *(draw.randrange(1, size) for _ in range(3))})
    log.anchorings = [log.anchoring(each, 6 + number) for number, each in enumerate(sizes)]
    return log


def spoilt(draw: random.Random, document: Document) -> None:
    """Some hash of some proof, some root or some place is another."""
    proofs = [proof for proof in document["consistency"] if proof]
    entry = draw.choice(document["records"])
    proofs += [entry["proof"]] if entry["proof"] else []
    what = draw.choice(["proof", "longer", "shorter", "index", "root", "size"])
    if what == "index":
        entry["index"] += draw.choice([1, 2, 7])
    elif what in ("root", "size"):
        anchor = draw.choice(document["anchors"])
        anchor[what] = "ab" * 32 if what == "root" else anchor["size"] + 1
    else:
        proof = draw.choice(proofs)
        if what == "longer":
            proof.insert(draw.randrange(len(proof) + 1), "cd" * 32)
        elif what == "shorter":
            proof.pop(draw.randrange(len(proof)))
        else:
            proof[draw.randrange(len(proof))] = "ef" * 32


def test_both_judge_files_of_any_log_alike_whole_and_spoilt() -> None:
    draw, session = random.Random(9162), sessions()["eip712"]
    files, expected = [], []
    for number in range(60):
        log = grown(draw, session)
        document = log.document(anchors=len(log.anchorings))
        if number % 3:
            spoilt(draw, document)
        told = chain(log)
        file = sealed(document)
        files.append((file, told))
        report = verify(file, snapshot(told), registry=told["registry"])
        expected.append(failed(report) or None)
    assert by_node(files) == expected
    assert {None, "anchor", "inclusion"} <= set(expected)


@pytest.mark.parametrize("place", ["signature", "checkpoint", "verifier_key"])
def test_a_changed_signature_is_no_signature(place: str) -> None:
    told = INDEX["chains"]["eip712"]
    document = read((VECTORS / "evidence" / "whole.json").read_bytes())
    if place == "signature":
        document["signature"] = document["signature"][:-2] + "00"
        file = json_line(document)
    else:
        within = document["log"] if place == "verifier_key" else document
        text = within[place]
        at = len(text) - 9
        within[place] = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        del document["signature"]
        file = render_evidence(document, LOG_KEY.sign(seal_message(document)))
    [found] = by_node([(file, told)])
    assert found == {"signature": "seal", "checkpoint": "anchor", "verifier_key": "format"}[place]


def json_line(document: Document) -> bytes:
    """A document with the signature that it has."""
    return render_evidence(
        {name: value for name, value in document.items() if name != "signature"},
        bytes.fromhex(document["signature"]),
    )
