import json
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from engine.audit.checkpoint import NAME_MAX, Checkpoint, NoteError, open_note, sign, verifier_key
from engine.audit.merkle import SIZE_MAX, Tree, leaf_hash

VECTOR = json.loads((Path(__file__).parent / "vectors" / "checkpoint.json").read_text("utf-8"))
KEY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTOR["seed"]))
NAME: str = VECTOR["name"]
VERIFIER: str = VECTOR["verifier_key"]
CHECKPOINT = Checkpoint(VECTOR["origin"], VECTOR["size"], bytes.fromhex(VECTOR["root"]))
NOTE: str = VECTOR["note"]

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def opens(note: str, key: str = VERIFIER) -> bool:
    """Whether the note opens; anything but NoteError is a failure of the test."""
    try:
        open_note(note, key)
    except NoteError:
        return False
    return True


def signed_by_hand(body: str, key_id: bytes = bytes.fromhex("4cebdb9c")) -> str:
    """A note over any text whatever, with a good signature of the right key."""
    return f"{body}\n— {NAME} {b64encode(key_id + KEY.sign(body.encode())).decode()}\n"


def test_the_vector() -> None:
    assert sign(CHECKPOINT, NAME, KEY) == NOTE
    assert verifier_key(NAME, KEY.public_key()) == VERIFIER
    assert open_note(NOTE, VERIFIER) == CHECKPOINT
    assert signed_by_hand(CHECKPOINT.body().decode()) == NOTE


def test_the_body_is_the_text_before_the_blank_line() -> None:
    assert CHECKPOINT.body() == NOTE.encode().split(b"\n\n")[0] + b"\n"
    signature = b64decode(NOTE.rsplit(maxsplit=1)[-1])[4:]
    KEY.public_key().verify(signature, CHECKPOINT.body())


def test_the_key_id_is_that_of_a_well_known_log() -> None:
    """The published verifier key of Go's checksum database, written by another implementation."""
    published = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    key = b64decode(published.split("+", 2)[2])[1:]
    assert verifier_key("sum.golang.org", Ed25519PublicKey.from_public_bytes(key)) == published
    with pytest.raises(NoteError, match=r"not signed by sum\.golang\.org\+033de0ae"):
        open_note(NOTE, published)


def test_every_change_of_one_byte_is_refused() -> None:
    original = NOTE.encode()
    opened = []
    for position, byte in enumerate(original):
        for value in range(256):
            changed = original[:position] + bytes([value]) + original[position + 1 :]
            try:
                text = changed.decode()
            except UnicodeDecodeError:
                continue
            if opens(text):
                opened.append((position, value))
        assert opened[-1:] == [(position, byte)]
    assert len(opened) == len(original)


def test_every_lost_or_added_character_is_refused() -> None:
    for position in range(len(NOTE)):
        assert not opens(NOTE[:position])
        assert not opens(NOTE[:position] + NOTE[position + 1 :])
    for position in range(len(NOTE) + 1):
        for extra in "0A=/+\n\r \t\0\x7f\x85\u2028\ufeff—":
            assert not opens(NOTE[:position] + extra + NOTE[position:])


def test_every_change_of_the_verifier_key_is_refused() -> None:
    for position, own in enumerate(VERIFIER):
        for other in BASE64 + "=\n .é":
            if other != own:
                assert not opens(NOTE, VERIFIER[:position] + other + VERIFIER[position + 1 :])


@pytest.mark.parametrize(
    "body",
    [
        CHECKPOINT.body().decode().replace("\n42\n", "\n042\n"),
        CHECKPOINT.body().decode().replace("\n42\n", "\n+42\n"),
        CHECKPOINT.body().decode().replace("\n42\n", "\n-42\n"),
        CHECKPOINT.body().decode().replace("\n42\n", "\n٤٢\n"),
        CHECKPOINT.body().decode().replace("\n42\n", "\n\n"),
        CHECKPOINT.body().decode().replace("\n42\n", "\n4_2\n"),
        CHECKPOINT.body().decode().replace("\n42\n", f"\n{2**63}\n"),
        CHECKPOINT.body().decode().replace("\n42\n", f"\n{10**30}\n"),
        CHECKPOINT.body().decode().replace("\n", "\r\n"),
        CHECKPOINT.body().decode().replace("Hh8=", "Hh9="),
        CHECKPOINT.body().decode().replace("Hh8=", "Hh8"),
        CHECKPOINT.body().decode().replace("AAEC", "AA-C"),
        CHECKPOINT.body().decode() + "an extension line\n",
        CHECKPOINT.body().decode() + "\n",
        "\n" + CHECKPOINT.body().decode(),
        CHECKPOINT.body().decode().replace("audit", "au dit"),
        CHECKPOINT.body().decode().replace("audit", "audít"),
        CHECKPOINT.body().decode().replace("audit.example/7f3a", ""),
    ],
)
def test_a_good_signature_does_not_excuse_the_form(body: str) -> None:
    assert body != CHECKPOINT.body().decode()
    note = signed_by_hand(body)
    KEY.public_key().verify(b64decode(note.split()[-1])[4:], body.encode())
    assert not opens(note)


def test_more_than_one_signature_line_is_refused() -> None:
    line = NOTE.split("\n\n")[1]
    stranger = sign(CHECKPOINT, "witness.example", Ed25519PrivateKey.generate()).split("\n\n")[1]
    assert not opens(NOTE + line)
    assert not opens(NOTE + stranger)
    assert not opens(NOTE.replace(line, stranger + line))
    assert not opens(NOTE.replace("\n\n", "\r\n\r\n"))
    assert not opens(NOTE.replace("\n", "\r\n"))
    assert not opens(NOTE.replace("—", "-"))


def test_another_key_is_refused_under_the_same_name_and_id() -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    note = sign(CHECKPOINT, NAME, stranger)
    with pytest.raises(NoteError, match="not signed by"):
        open_note(note, VERIFIER)
    signature = b64decode(note.split()[-1])[4:]
    forged = b64encode(bytes.fromhex("4cebdb9c") + signature).decode()
    with pytest.raises(NoteError, match=r"signature of .* is wrong"):
        open_note(note.replace(note.split()[-1], forged), VERIFIER)
    with pytest.raises(NoteError, match="not signed by"):
        open_note(sign(CHECKPOINT, "other.example", KEY), VERIFIER)


def test_a_key_id_must_be_that_of_the_key() -> None:
    other = VERIFIER.replace("+4cebdb9c+", "+00000000+")
    note = signed_by_hand(CHECKPOINT.body().decode(), bytes(4))
    with pytest.raises(NoteError, match="id is not that of its key"):
        open_note(note, other)


def test_a_signature_does_not_move_to_another_checkpoint() -> None:
    body, signature_line = NOTE.split("\n\n")
    for other in (
        Checkpoint(CHECKPOINT.origin, 43, CHECKPOINT.root),
        Checkpoint(CHECKPOINT.origin, 42, bytes(32)),
        Checkpoint("audit.example/other", 42, CHECKPOINT.root),
    ):
        with pytest.raises(NoteError, match="is wrong"):
            open_note(f"{other.body().decode()}\n{signature_line}", VERIFIER)
    assert opens(f"{body}\n\n{signature_line}")


@pytest.mark.parametrize("note", ["", "\n", "\n\n", None, 7, NOTE.encode(), "\ud800", "—" * 10_000])
def test_no_other_error_escapes(note: str) -> None:
    assert not opens(note)
    assert not opens(NOTE, note)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 2**53, SIZE_MAX])
def test_sizes(size: int) -> None:
    checkpoint = Checkpoint("log.example", size, Tree([leaf_hash(b"entry")]).root())
    assert open_note(sign(checkpoint, NAME, KEY), VERIFIER) == checkpoint


@pytest.mark.parametrize("size", [-1, 2**63, True, 1.0, "1", None])
def test_wrong_sizes(size: int) -> None:
    with pytest.raises(NoteError, match="size"):
        Checkpoint("log.example", size, bytes(32))


@pytest.mark.parametrize("root", [b"", bytes(31), bytes(33), "0" * 32, bytearray(32), None])
def test_wrong_roots(root: bytes) -> None:
    with pytest.raises(NoteError, match="root"):
        Checkpoint("log.example", 1, root)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a+b", "a\nb", "a\n", "\x7f", "é", "a\u2028b", "x" * (NAME_MAX + 1), None],
)
def test_wrong_names(name: str) -> None:
    with pytest.raises(NoteError, match="origin"):
        Checkpoint(name, 1, bytes(32))
    with pytest.raises(NoteError, match="key name"):
        sign(CHECKPOINT, name, KEY)
    with pytest.raises(NoteError, match="key name"):
        verifier_key(name, KEY.public_key())


NAMES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="+"),
    min_size=1,
    max_size=NAME_MAX,
)


@given(
    origin=NAMES,
    name=NAMES,
    size=st.integers(0, SIZE_MAX),
    root=st.binary(min_size=32, max_size=32),
    seed=st.binary(min_size=32, max_size=32),
)
def test_what_is_signed_opens(origin: str, name: str, size: int, root: bytes, seed: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    checkpoint = Checkpoint(origin, size, root)
    assert (
        open_note(sign(checkpoint, name, key), verifier_key(name, key.public_key())) == checkpoint
    )
