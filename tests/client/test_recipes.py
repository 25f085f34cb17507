"""Each recipe is run as it is written."""

import re
from pathlib import Path

import pytest

from tests.rest.served import Served

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.md") if path.stem != "README")


def test_every_recipe_is_listed() -> None:
    text = (RECIPES / "README.md").read_text()
    listed = re.findall(r"^\| \[[^]]+\]\((.+)\.md\)", text, re.MULTILINE)
    assert sorted(listed) == NAMES
    assert len(NAMES) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_works_as_written(
    name: str, tenant: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (RECIPES / f"{name}.md").read_text()
    [program] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert text.count("```") == 2
    assert "assert " in program
    monkeypatch.setenv("TALLYSTICK_URL", tenant.url)
    monkeypatch.setenv("TALLYSTICK_API_KEY", tenant.key)
    before = tenant.records()
    exec(compile(program, f"{name}.md", "exec"), {"__name__": "__main__"})
    assert tenant.records() > before
