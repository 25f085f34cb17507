"""Imports py-evm without the tables of pairings.

py_ecc computes tables for the pairings of two elliptic curves, and for hashing to one, when it is
imported: a fifth of all that a start imports. Only the precompiled contracts of EIP-197 and
EIP-2537 need them. So what computes them is left out here, and imported by the first call of such
a contract. Whoever imports py_ecc later gets all of it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_LATER = (
    "py_ecc.bls",
    "py_ecc.bls.hash_to_curve",
    "py_ecc.optimized_bls12_381.optimized_pairing",
    "py_ecc.optimized_bn128.optimized_pairing",
)
"""Modules of which py-evm takes nothing but functions."""


class _Later(ModuleType):
    """Stands for a module while others import functions of it."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def function(*arguments: Any, **options: Any) -> Any:
            return getattr(import_module(self.__name__), name)(*arguments, **options)

        return function


@contextmanager
def _left_out(names: tuple[str, ...]) -> Iterator[None]:
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update((name, _Later(name)) for name in absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


with _left_out(_LATER):
    import_module("eth.vm.forks.prague")
