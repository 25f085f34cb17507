"""The thin ways in: REST today. A route parses, calls one engine method and renders."""
