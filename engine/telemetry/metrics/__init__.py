"""The metrics that are known, by who prints them; `definitions.py` is the one table of them all."""
