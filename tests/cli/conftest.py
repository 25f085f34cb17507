"""One server for all tests of the commands."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from tests.cli.processes import Done, Serving, called, tallystick


@dataclass
class Shell:
    """Somebody with an operator's key and a wallet, at a prompt."""

    server: Serving
    key: str
    owner: LocalAccount
    key_file: Path
    directory: Path

    def __call__(self, *arguments: str | bytes | Path, given: str = "", **variables: str) -> Done:
        """Call `main` here."""
        return called(*arguments, given=given, cwd=self.directory, **self._with(variables))

    def process(self, *arguments: str | bytes | Path, **variables: str) -> Done:
        """Run a process."""
        return tallystick(*arguments, cwd=self.directory, **self._with(variables))

    def _with(self, variables: dict[str, str]) -> dict[str, str]:
        return {"url": self.server.url, "api_key": self.key} | variables


@pytest.fixture(scope="package")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A running server, and who may use it."""
    directory = tmp_path_factory.mktemp("shell")
    server = Serving(directory / "data")
    owner = Account.create()
    key_file = directory / "owner.key"
    key_file.write_text("0x" + bytes(owner.key).hex() + "\n")
    assert server.first_key is not None
    yield Shell(server, server.first_key, owner, key_file, directory)
    status, errors = server.stop()
    assert (status, errors) == (0, "")
