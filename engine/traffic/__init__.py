"""Traffic: patterns of bytes between ranks, read, generated and measured."""
