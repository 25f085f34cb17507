"""What rows hold besides what their record tells, as one hash in the record.

Some of it is nobody's business who gets a record as evidence (metadata, the hash of a secret), and
all of it would otherwise be free to change for whoever can write to the database.
"""

import hashlib

from engine.audit.canonical import encode

_DOMAIN = b"tallystick/rest/1\n"


def rest_hash(**values: str | bytes | None) -> str:
    """SHA-256, in hexadecimal, of these columns as canonical JSON; bytes count as hexadecimal.

    Where the values could be guessed, one of them must be random.
    """
    plain = {
        name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()
    }
    return hashlib.sha256(_DOMAIN + encode(plain)).hexdigest()
