"""The metrics that are known, by who prints them; `engine/watch/meaning.py` is the one table of them all."""
