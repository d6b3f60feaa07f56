"""Client of the engine: start, connect, send commands, stop."""
