"""The policy engine. It knows no web framework; see docs/architecture.md for its rooms."""

import sys
from importlib import import_module

RECURSION_LIMIT = 12_000
"""Python frames. No parser overflows the stack of a thread before it, so that nested JSON, of a
request or of an endpoint, is an error and does not end the process."""

# py_ecc, which eth-account imports, lets the whole process recurse 100,000 deep; it does so once.
_limit = min(sys.getrecursionlimit(), RECURSION_LIMIT)
import_module("py_ecc")
sys.setrecursionlimit(_limit)
