"""The recipes can be run on one server, in any order, and again."""

import re
from itertools import chain
from pathlib import Path

import pytest

from tests.rest.served import Served

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
FENCED = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def programs() -> dict[str, str]:
    """Each recipe's program, by its name."""
    pages = (path for path in sorted(RECIPES.glob("*.md")) if path.stem != "README")
    return {path.stem: FENCED.findall(path.read_text())[0] for path in pages}


def test_no_recipe_fails_after_another_or_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Served(tmp_path / "data") as served:
        monkeypatch.setenv("TALLYSTICK_URL", served.url)
        monkeypatch.setenv("TALLYSTICK_API_KEY", served.key)
        found = list(programs().items())
        for name, program in chain(found, reversed(found)):
            exec(compile(program, f"{name}.md", "exec"), {"__name__": "__main__"})


def test_no_two_recipes_have_an_agent_in_common() -> None:
    named = [
        set(
            re.findall(
                r'(?:agent_id=|AGENT = |AGENT, LABEL = )f?"([^"]+)"|agent = f"([^"]+)"', text
            )
        )
        for text in programs().values()
    ]
    assert all(named)
    assert len(set.union(*named)) == sum(map(len, named))
