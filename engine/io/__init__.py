"""I/O: NIXL, memory, endpoints, the measuring loop, and the capability checks of this host."""
