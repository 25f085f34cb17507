"""A file that is read piece by piece is held to the same form as one that is read at once."""

import contextlib
import hashlib
import os
import re
from pathlib import Path
from unittest import mock

import pytest

from engine.audit import canonical, pieces
from engine.audit.evidence import (
    NOT_PROVEN,
    Evidence,
    EvidenceError,
    open_evidence,
    parse_evidence,
)
from engine.evidence.stored_file import open_file
from tests.evidence.story import Story, read, story

INSTEAD = b'{}[]",: 0\n'
SEAMS = (b'"records":[', b'],"registration":', b'"tail":[', b'],"withheld":', b'},{"index":')


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


@pytest.fixture(scope="module")
def file(told: Story) -> bytes:
    """A file with records of both kinds."""
    document = read(told.small)
    entries = document["records"]
    tail = [{"index": each["index"], "record": each["record"]} for each in entries[3:]]
    return told.seal(document | {"records": entries[:3], "tail": tail})


def at_once(evidence: Evidence) -> bytes:
    """The canonical file of what was read in pieces, made by the slow way."""
    lists = {
        name: [canonical.decode(item) for item in items.read(hashlib.sha256())]
        for name, items in (("records", evidence.pieces.records), ("tail", evidence.pieces.tail))
    }
    return canonical.encode({**evidence.pieces.document, **lists}) + b"\n"


def at_seams(file: bytes) -> set[int]:
    """The places in and around everything by which a file is taken apart."""
    return {
        at
        for seam in SEAMS
        for found in re.finditer(re.escape(seam), file)
        for at in range(found.start() - 2, found.end() + 3)
    }


def test_one_byte_away_nothing_is_read_but_canonical_files(file: bytes) -> None:
    assert at_once(parse_evidence(file)) == file
    accepted = 0
    for at in at_seams(file):
        edits = [file[:at] + file[at + 1 :]]
        for byte in INSTEAD:
            edits.append(file[:at] + bytes([byte]) + file[at:])
            edits.append(file[:at] + bytes([byte]) + file[at + 1 :])
        for edited in edits:
            with contextlib.suppress(EvidenceError):
                assert at_once(parse_evidence(edited)) == edited
                accepted += 1
    assert accepted > 10


def test_lists_that_stand_elsewhere_are_not_taken_for_the_file_s(told: Story, file: bytes) -> None:
    """In what is free in form: a discrepancy's evidence."""
    document = read(file)
    hidden = {"not_proven": list(NOT_PROVEN), "records": document["records"], "registration": {}}
    noted = {"kind": "x", "severity": "info", "evidence": hidden, "resolved_ms": None}
    noted |= {"first_seen_ms": 1, "last_seen_ms": 1}
    for records in ([], document["records"]):
        with pytest.raises(EvidenceError):
            parse_evidence(told.seal(document | {"discrepancies": [noted], "records": records}))


@pytest.mark.parametrize("chunk_bytes", [1, 2, 7, 64, 1000])
def test_where_it_is_cut_does_not_matter(file: bytes, chunk_bytes: int) -> None:
    expected = parse_evidence(file)
    with mock.patch.object(pieces, "_CHUNK_BYTES", chunk_bytes):
        found = parse_evidence(file)
        assert list(found.entries()) == list(expected.entries())
        assert (len(found.records), len(found.tail)) == (3, 2)
        assert found.sealed() == expected.sealed()


class Watched(bytes):
    """A file that counts how often each of its bytes is read."""

    def __init__(self, _: bytes) -> None:
        self.reads = [0] * len(self)

    def __getitem__(self, part: slice) -> bytes:  # type: ignore[override]
        for at in range(*part.indices(len(self))):
            self.reads[at] += 1
        return super().__getitem__(part)


def test_records_are_read_once(told: Story) -> None:
    """Where they begin and end is found from the ends of the file, which may be large."""
    file = Watched(told.small)
    begin, end = file.index(SEAMS[0]) + len(SEAMS[0]), file.index(SEAMS[1])
    with mock.patch.object(pieces, "_CHUNK_BYTES", 100):
        evidence = open_evidence(file)
        assert evidence.sealed() == parse_evidence(told.small).sealed()
        assert len(evidence.records) == len(read(told.small)["records"])
    assert set(file.reads[begin + 200 : end - 200]) == {1}


def test_what_is_too_long_to_hold_is_refused(file: bytes) -> None:
    with mock.patch.object(pieces, "ITEM_BYTES_MAX", 100), pytest.raises(EvidenceError):
        parse_evidence(file)
    with mock.patch.object(pieces, "AROUND_BYTES_MAX", 100), pytest.raises(EvidenceError):
        parse_evidence(file)


def test_a_stored_file_that_is_changed_meanwhile_is_never_believed(
    file: bytes, tmp_path: Path
) -> None:
    """What was signed is what was read; and what is read again is what was read before."""
    path = tmp_path / "evidence.json"
    path.write_bytes(file)
    salt = file.index(rb"\"salt\":\"") + len(rb"\"salt\":\"")
    digit = b"0" if file[salt : salt + 1] != b"0" else b"1"
    changed = file[:salt] + digit + file[salt + 1 :]
    with open_file(path) as stored:
        evidence = parse_evidence(stored)
        assert evidence.sealed() == parse_evidence(file).sealed()
        path.write_bytes(changed)
        with pytest.raises(EvidenceError, match="changed while it was read"):
            list(evidence.entries())

        path.write_bytes(file)
        evidence = open_evidence(stored)
        path.write_bytes(changed)
        assert evidence.sealed() != parse_evidence(file).sealed()

        path.write_bytes(file)
        evidence = open_evidence(stored)
        path.write_bytes(file[:-200])
        with pytest.raises(EvidenceError):
            list(evidence.entries())


def test_a_pipe_is_read_at_once(file: bytes) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(file)
    with open_file(Path(f"/dev/fd/{reading}")) as source:
        assert source == file
    os.close(reading)
