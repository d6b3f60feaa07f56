"""What moves bytes: NIXL, memory, endpoints, the measuring loop, and what this host can do."""
