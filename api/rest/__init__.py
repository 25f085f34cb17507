"""REST, by FastAPI."""
