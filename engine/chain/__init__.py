"""Reading and writing the chain: one gateway, embedded or by JSON-RPC, and a local Anvil."""
