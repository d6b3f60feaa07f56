"""On the PYTHONPATH of recorded commands; holds `sitecustomize` only."""
