"""What binds a payment on the chain to the record that allowed it.

The nonce of the token transfer (EIP-3009) is a hash of that record. Nobody can make a record to fit
a payment afterwards, nor let two payments rest on one record.
"""

import hashlib

NONCE_SALT_BYTES = 32
_DOMAIN = b"tallystick/nonce/1\n"


def payment_nonce(record_hash: bytes, salt: bytes) -> bytes:
    """The 32-byte nonce of the one payment that a record allows: SHA-256(domain ‖ hash ‖ salt).

    The salt keeps who holds a neighbour's inclusion proof, in which the record's hash can stand,
    from finding the payment of that record on the chain.
    """
    if len(record_hash) != 32 or len(salt) != NONCE_SALT_BYTES:
        raise ValueError("a record's hash has 32 bytes, and so has the salt")
    return hashlib.sha256(_DOMAIN + record_hash + salt).digest()
