"""Planning, transfers, telemetry, doctor and the background process; no user interface."""
