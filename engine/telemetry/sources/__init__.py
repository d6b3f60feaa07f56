"""One small module for each kind of source."""
