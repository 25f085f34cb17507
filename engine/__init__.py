"""The policy engine. It knows no web framework; see docs/architecture.md for its rooms."""
