"""The key-encryption key, derived again by another implementation."""

import hashlib

import pytest

from engine.errors import CannotStart
from engine.sessions.vault import Vault

SALT = bytes(range(32))


def test_a_passphrase_gives_the_key_of_rfc_7914() -> None:
    kek = hashlib.scrypt(
        "pässphrase".encode(), salt=SALT, n=2**15, r=8, p=1, dklen=32, maxmem=2**26
    )
    sealed = Vault(kek).seal(b"a secret", "of a test")
    assert Vault.from_passphrase("pässphrase", SALT).open(sealed, "of a test") == b"a secret"
    for passphrase, salt in (("passphrase", SALT), ("pässphrase", SALT[::-1])):
        with pytest.raises(CannotStart, match="cannot be decrypted"):
            Vault.from_passphrase(passphrase, salt).open(sealed, "of a test")
