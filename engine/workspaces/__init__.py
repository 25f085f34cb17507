"""Workspaces (tenants), the keys of their operators, and their agents."""
