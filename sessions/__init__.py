"""Sessions: records of benchmark runs, traces and telemetry, and their storage, analysis and formats."""
