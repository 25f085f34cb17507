"""Tools for agents (Model Context Protocol): each is a call of the REST API as its caller."""
