"""However often, from wherever and after whatever, an authorization is settled once."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from api.facilitator.app import create_facilitator_app
from api.server import AppServer
from tests.anvil_world import AnvilWithContracts
from tests.payments import killed_facilitator
from tests.payments.conftest import usdc_of
from tests.payments.paying import Till

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120
PROCESSES, REPLAYS = 2, 100
LATER = {"duplicate_settlement", "settlement_pending", "invalid_exact_evm_nonce_already_used"}


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "tests" / "payments" / script), *arguments]


def replayed(urls: Sequence[str], request: dict[str, Any]) -> list[dict[str, Any]]:
    """What all hear who send the same request."""
    clients = [
        subprocess.Popen(
            python("replaying.py", ",".join(urls), str(REPLAYS)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for client in clients:
        assert client.stdin is not None
        client.stdin.write(json.dumps(request))
        client.stdin.close()
        client.stdin = None
    answers: list[dict[str, Any]] = []
    for client in clients:
        output, _ = client.communicate(timeout=PATIENCE_S)
        assert client.returncode == 0
        answers += json.loads(output)
    assert len(answers) == PROCESSES * REPLAYS
    return answers


def outcome(answer: dict[str, Any]) -> str:
    return "success" if answer["success"] else str(answer["errorReason"])


def test_two_hundred_replays_at_once_are_one_transfer_and_one_success(anvil_till: Till) -> None:
    with AppServer(create_facilitator_app(anvil_till.facilitator), "127.0.0.1", 0) as server:
        answers = replayed([server.url], anvil_till.request())
    told = Counter(outcome(answer) for answer in answers)
    assert told["success"] == 1
    assert set(told) <= {"success", "duplicate_settlement", "settlement_pending"}
    assert len({answer["transaction"] for answer in answers} - {""}) == 1
    assert (anvil_till.relayed(), anvil_till.transfers()) == (1, 1)


def test_two_facilitators_that_know_nothing_of_each_other_make_one_transfer(
    anvil_till: Till, tmp_path: Path
) -> None:
    other = Till(
        gateway=anvil_till.gateway,
        bank=anvil_till.bank,
        domain=anvil_till.domain,
        path=tmp_path / "other.sqlite3",
        payer=anvil_till.payer,
    )
    with ExitStack() as opened:
        urls = [
            opened.enter_context(
                AppServer(create_facilitator_app(till.facilitator), "127.0.0.1", 0)
            ).url
            for till in (anvil_till, other)
        ]
        answers = replayed(urls, anvil_till.request())
    told = Counter(outcome(answer) for answer in answers)
    assert told["success"] == 1
    assert set(told) <= {"success", "transaction_failed"} | LATER
    assert anvil_till.transfers() == 1
    other.facilitator.close()


def test_whenever_a_facilitator_is_killed_its_successor_settles_once(
    anvil: AnvilWithContracts, tmp_path: Path
) -> None:
    moments = (*killed_facilitator.MOMENTS, killed_facilitator.AFTER)
    tills = {
        moment: Till(
            gateway=anvil.gateway,
            bank=anvil.stranger,
            domain=usdc_of(anvil),
            path=tmp_path / f"{moment}.sqlite3",
        )
        for moment in moments
    }
    requests = {moment: till.request() for moment, till in tills.items()}
    for till in tills.values():
        till.facilitator.close()
    asked = {
        "url": anvil.process.url,
        "moments": {
            moment: {
                "key": "0x" + bytes(till.gas_payer.key).hex(),
                "path": str(till.path),
                "request": requests[moment],
            }
            for moment, till in tills.items()
        },
    }
    done = subprocess.run(
        python("killed_facilitator.py", json.dumps(asked)),
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0
    transfers = {moment: till.transfers() for moment, till in tills.items()}
    assert list(transfers.values()) == [0, 0, 1, 1, 1]
    for moment, till in tills.items():
        till.open()
        answer = till.settle(requests[moment])
        if moment == killed_facilitator.AFTER:
            # It may have been told: who lost the answer finds the transaction in this one.
            assert answer["errorReason"] == "duplicate_settlement"
        else:
            assert answer["success"], (moment, answer)
        receipt = till.gateway.receipt(bytes.fromhex(answer["transaction"][2:]))
        assert receipt is not None
        assert receipt.succeeded
        assert till.transfers() == 1
        assert till.settle(requests[moment])["errorReason"] == "duplicate_settlement"
        till.facilitator.close()
