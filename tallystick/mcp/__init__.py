"""The tools that only an agent's own machine can have: they ask URLs, and read files."""
