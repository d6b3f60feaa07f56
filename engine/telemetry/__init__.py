"""Live sources: what serving engines, NIXL and the host say about KV bytes on the move."""
