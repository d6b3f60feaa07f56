"""The budget table of the README: `uv run python -m tests.benchmarks [PART…]`. Figures, never verdicts."""
