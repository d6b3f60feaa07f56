"""Random kills of real processes: `python -m tests.kills --count 300 --seed N [KIND…]`."""
