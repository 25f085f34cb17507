"""The documents tell the truth about this commit."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.facilitator.app import create_facilitator_app
from api.facilitator.routes import THREADS_MAX
from api.rest.queries import PAYMENT_STATES
from api.server import server_app
from bench.contenders import COMPARISONS, CONTENDERS
from engine.audit.evidence import NOT_PROVEN
from engine.errors import Unavailable
from engine.payments.relay import RECEIPT_TIMEOUT_S
from engine.payments.token_domain import DomainUnknown
from engine.policy.rules import RULES
from engine.settings import CLIENT_VARIABLES, Settings
from tests.world import World

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()


def test_the_readme_lists_every_setting_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| `(TALLYSTICK_\w+)` \| (?:`(.*?)`)? ?\| (.*) \|$", README, re.MULTILINE)
    expected = [
        (
            f"TALLYSTICK_{name.upper()}",
            "" if field.default in (None, ()) else str(field.default),
            field.description,
        )
        for name, field in Settings.model_fields.items()
    ]
    assert rows == expected


def test_the_readme_names_every_variable_of_the_client() -> None:
    assert sorted(name for name in CLIENT_VARIABLES if name not in README) == []


def test_the_readme_says_what_every_evidence_file_says_is_not_proven() -> None:
    assert [line for line in NOT_PROVEN if f"- {line}" not in README] == []


def test_the_rules_are_documented_in_their_order() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `(\w+)` \| (.*) \|$", API, re.MULTILINE)
    assert rows[:-1] == [(rule.code, rule.name, rule.meaning) for rule in RULES]
    assert rows[-1][0] == "ALLOWED"


def test_every_route_is_documented_and_every_documented_route_exists(world: World) -> None:
    documented = set(re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`]*)`", API))
    served = {
        (method.upper(), path.replace("/api/v1/sessions", "/api/v1/ai/sessions"))
        for path, operations in server_app(world.engine).openapi()["paths"].items()
        for method in operations
    }
    assert documented == served


def test_every_route_of_the_facilitator_is_documented(world: World) -> None:
    text = (ROOT / "docs" / "facilitator.md").read_text()
    documented = set(re.findall(r"^\| `(GET|POST) (/\w+)` \|", text, re.MULTILINE))
    facilitator = world.engine.networks.facilitator()
    assert facilitator is not None
    served = create_facilitator_app(facilitator).openapi()["paths"]
    assert documented == {
        (method.upper(), path) for path, operations in served.items() for method in operations
    }
    for number in (THREADS_MAX, RECEIPT_TIMEOUT_S):
        assert f" {number:g} " in text


def test_every_status_that_is_an_error_is_documented(world: World) -> None:
    documented = re.findall(r"^\| (\d{3}) \| ", API, re.MULTILINE)
    assert documented == sorted(set(documented))
    answered = {
        status
        for operations in server_app(world.engine).openapi()["paths"].values()
        for operation in operations.values()
        for status in operation["responses"]
        if status >= "400"
    }
    anywhere = {"405", "413", "500", "501"}
    assert set(documented) == answered | anywhere


def test_every_code_of_a_503_is_documented_once_for_the_api_or_for_the_store() -> None:
    storage = (ROOT / "docs" / "storage.md").read_text()
    [table] = re.findall(
        r"^\| code \| what is in doubt .*\n\|---.*\n((?:\|.*\n)+)", API, re.MULTILINE
    )
    of_api = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", table, re.MULTILINE)
    rows = re.findall(r"^\| 503 \| (.*?) \|", storage, re.MULTILINE)
    of_store = [code for row in rows for code in re.findall(r"`(\w+)`", row)]
    assert len(of_api) == len(set(of_api)) == table.count("\n")
    # The store hands on why it can ask for none of its tokens: no `Unavailable` by itself.
    answered = {Unavailable.code, DomainUnknown.code}
    answered.update(kind.code for kind in kinds_of(Unavailable))
    for path in (*ROOT.glob("engine/**/*.py"), *ROOT.glob("api/**/*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == Unavailable.__name__:
                given = [each.value for each in call.keywords if each.arg == "code"]
                # What is no constant is the code of another error.
                answered.update(str(each.value) for each in given if isinstance(each, ast.Constant))
    assert {*of_api, *of_store} == answered


def kinds_of(error: type[Unavailable]) -> Iterator[type[Unavailable]]:
    for kind in error.__subclasses__():
        yield kind
        yield from kinds_of(kind)


def test_the_limits_are_documented_with_their_defaults(world: World) -> None:
    rows = re.findall(r"^\| `(max_\w+|require_\w+)`.* \| (\d+) \| ", API, re.MULTILINE)
    schema = server_app(world.engine).openapi()["components"]["schemas"]
    fields = schema["LimitsBody"]["properties"]
    assert rows == [(name, str(field["default"])) for name, field in fields.items()]


def test_the_fields_and_statuses_of_payments_are_documented(world: World) -> None:
    schema = server_app(world.engine).openapi()
    [section] = re.findall(r"^## Payments\n(.*?)^## ", API, re.MULTILINE | re.DOTALL)
    asked, differs, statuses = re.findall(r"^\|---.*\n((?:\|.*\n)+)", section, re.MULTILINE)
    fields = schema["components"]["schemas"]

    def named(column: str) -> set[str]:
        return set(re.findall(r"`([a-z_]+)`", column))

    firsts = [row.split(" | ")[0] for row in asked.splitlines()]
    assert set.union(*map(named, firsts)) == set(fields["CreatePayment"]["properties"])
    rows = dict(row.strip("| ").split(" | ") for row in differs.splitlines())
    assert set(fields["SmartPayment"]["properties"]) <= named(rows["`smart-payment`"])
    assert set(fields["Execute"]["properties"]) <= named(rows["`execute`"])
    for body, route in (("Capture", "`capture`"), ("CheckPayment", "`check-payment`")):
        assert set(fields[body]["properties"]) == named(rows[route])
    left_out = named(rows["a payment intent"].partition(", with")[0])
    assert left_out == named("".join(firsts)) - set(fields["CreateIntent"]["properties"])

    cells = [re.findall(r"[^|]+", row) for row in statuses.splitlines()]
    for status, states, others in cells:
        for name in named(status) | named(others):
            assert set(PAYMENT_STATES[name]) == named(states)  # type: ignore[index]
    assert {name for row in cells for name in named(row[0] + row[2])} | {"refunded"} == set(
        PAYMENT_STATES
    )


def test_packages_beside_the_client_are_named_and_can_be_hidden(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    text = (ROOT / "docs" / "python.md").read_text()
    assert [name for name in packages if f"`{name}`" not in text] == []
    (tmp_path / "engine.py").touch()
    (tmp_path / "program.py").write_text("from tallystick import Client")
    told = subprocess.run(
        [sys.executable, tmp_path / "program.py"], capture_output=True, text=True, check=False
    )
    [said] = re.findall(r"ends with `(.*)`", text)
    assert told.stderr.endswith(f"ModuleNotFoundError: {said}\n")


DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "contracts/*.md", "docs/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_a_file_and_to_a_heading_of_it(document: Path) -> None:
    lost = []
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#]*)#?([^)]*)\)", without_code(document)):
        file = document.parent / target if target else document
        if not file.exists() or (anchor and anchor not in headings(file)):
            lost.append((target, anchor))
    assert lost == []


def headings(document: Path) -> list[str]:
    titles = re.findall(r"^#+ (.*)$", without_code(document), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]


def without_code(document: Path) -> str:
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_every_room_of_the_engine_is_on_the_map() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.name for path in (ROOT / "engine").iterdir() if (path / "__init__.py").exists()}
    assert sorted(room for room in rooms if f"`{room}/`" not in text) == []


def test_every_contender_of_the_benchmark_is_described_as_it_describes_itself() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (.*) \|$", PERFORMANCE, re.MULTILINE)
    assert rows == [(kind.name, kind.unit, kind.says) for kind in CONTENDERS]
    ratios = re.findall(r"^- (.* ÷ .*)$", PERFORMANCE, re.MULTILINE)
    assert ratios == [comparison.name for comparison in COMPARISONS]


def test_what_is_said_to_be_reached_was_reached_in_the_published_run() -> None:
    row = r"^\| ((?:p99 of )?[a-z-]+(?: ÷ [a-z-]+)?) \| (at most )?([\d.]+) \| (yes|no) \|$"
    goals = re.findall(row, PERFORMANCE, re.MULTILINE)
    assert len(goals) == len(re.findall(r"\| (?:yes|no) \|$", PERFORMANCE, re.MULTILINE))
    published = json.loads((ROOT / "bench" / "results.json").read_text())
    found = {name: made["figure"]["median"] for name, made in published["contenders"].items()}
    found |= {ratio["name"]: ratio["median"] for ratio in published["ratios"]}
    for name, at_most, goal, said in goals:
        far = found[name] <= float(goal) if at_most else found[name] >= float(goal)
        assert said == ("yes" if far else "no"), name


def test_decisions_are_numbered_without_gaps() -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert [name[:4] for name in names] == [f"{n:04}" for n in range(1, len(names) + 1)]
    for path in (ROOT / "docs" / "decisions").glob("*.md"):
        assert path.read_text().startswith(f"# {int(path.name[:4])}. ")
