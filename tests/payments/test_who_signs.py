"""Nothing can sign with a session's key but the signer, and only the gate and transfers ask it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SIGNING = frozenset(
    (
        *("sign", "sign_hash", "sign_message", "sign_msg", "sign_msg_hash", "sign_transaction"),
        *("sign_typed_data", "unsafe_sign_hash", "sign_recoverable"),
    )
)
CALLERS = {
    "engine/audit/checkpoint.py": {"private_key.sign"},  # the log's Ed25519 key
    "engine/evidence/export.py": {"deployment.log_key.sign"},  # the same
    "engine/evidence/anchorer.py": {"sender.sign", "sign"},  # the operator's transactions
    "engine/sessions/on_chain.py": {"sender.sign"},
    "engine/chain/account.py": {"Signer.sign_transaction"},  # a key that is not a session's
    "engine/chain/sender.py": {"account.sign_transaction", "sign"},
    "tallystick/cli/sessions.py": {"account.sign_typed_data", "sign"},  # the owner's consent
    "engine/payments/authorization.py": {"Account.sign_typed_data"},
    "engine/payments/signer.py": {"authorization.sign"},
    "engine/payments/gate.py": {"self._signer.sign"},
    "engine/payments/transfers.py": {"self._signer.sign"},
}
OPENERS = {
    "engine/deployment.py": {"vault.open"},  # the operator's and the log's key
    "engine/fsck/keys.py": {"vault.open"},  # whether they open
    "engine/payments/signer.py": {"self.vault.open"},
    "engine/webhooks/endpoint.py": {"vault.open"},  # the secrets that sign deliveries
}


def calls() -> Iterator[tuple[str, str]]:
    """Every call in the package: the file, and what is called as it is written."""
    for package in ("engine", "api", "tallystick"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield str(path.relative_to(ROOT)), ast.unparse(node.func)


def found(wanted: frozenset[str], called: list[tuple[str, str]]) -> dict[str, set[str]]:
    callers: dict[str, set[str]] = {}
    for path, function in called:
        if function.rpartition(".")[2] in wanted:
            callers.setdefault(path, set()).add(function)
    return callers


def test_every_signature_and_every_opening_of_a_key_is_declared() -> None:
    called = list(calls())
    # Of the facilitator, which pays gas from an account of its own, nothing opens the vault.
    ours = [each for each in called if each[0] != "engine/payments/relay.py"]
    assert found(SIGNING, ours) == CALLERS
    opened = [each for each in ours if "vault" in each[1].split(".")[:-1]]
    assert found(frozenset(("open",)), opened) == OPENERS
