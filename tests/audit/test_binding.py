"""A payment's nonce is bound to the record that allowed it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audit.binding import NONCE_SALT_BYTES, payment_nonce

hashes = st.binary(min_size=32, max_size=32)


@given(hashes, hashes, hashes, hashes)
def test_a_nonce_belongs_to_one_record_and_one_salt(
    record: bytes, salt: bytes, other_record: bytes, other_salt: bytes
) -> None:
    nonce = payment_nonce(record, salt)
    assert len(nonce) == 32
    assert nonce == payment_nonce(record, salt)
    same = (record, salt) == (other_record, other_salt)
    assert (nonce == payment_nonce(other_record, other_salt)) is same


def test_a_nonce_is_what_an_auditor_computes() -> None:
    """printf 'tallystick/nonce/1\\n' followed by 32 bytes of 01 and 32 of 02, into sha256sum."""
    expected = "be5856503979034877a824a7293c4843ee17d25a2d5abef47b93ad12aad9393c"
    assert payment_nonce(b"\x01" * 32, b"\x02" * NONCE_SALT_BYTES).hex() == expected


@pytest.mark.parametrize(("record", "salt"), [(31, 32), (33, 32), (32, 31), (32, 0), (0, 64)])
def test_a_nonce_takes_whole_hashes_and_salts(record: int, salt: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        payment_nonce(bytes(record), bytes(salt))
