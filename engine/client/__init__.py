"""The way to the engine: start it, talk to it, stop it."""
