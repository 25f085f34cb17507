"""What is said of a field that a model does not have: which it has that may be meant."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from engine.nearest import nearest


def not_known(annotation: Any, path: Sequence[str | int]) -> str:
    """What is wrong with the last name of a path into a value of that type, in words."""
    *around, name = path or ("",)
    models = list(_models(annotation))
    for part in around:
        inner = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        models = [model for each in inner for model in _models(each)] or models
    before = "".join(f"{part}." for part in around)
    return not_one_of(str(name), {end: before + whole for end, whole in _paths(models).items()})


def not_one_of(name: str, known: Mapping[str, str]) -> str:
    """What is wrong with a name that is not known, in words; `known` has what each stands for."""
    found = nearest(name, known)
    return "is not a known field" + ("" if found is None else f" (is {known[found]} meant?)")


def _paths(models: Sequence[type[BaseModel]]) -> dict[str, str]:
    """The fields of models, and where they are: those of objects within them, too."""
    found: dict[str, str] = {}
    for model in models:
        for name, field in model.model_fields.items():
            for inner in _models(field.annotation):
                found |= {each: f"{name}.{each}" for each in inner.model_fields}
    return found | {name: name for model in models for name in model.model_fields}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type is, or that are in its unions and lists."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)
