"""Acceptance of a machine: outputs of benchmark programs, physical bounds, and the judgement of a figure."""
