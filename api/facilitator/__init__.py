"""The local x402 facilitator over HTTP, in a server of its own or beside the REST routes."""
