"""The background process: folders and lock, connections, run queue, telemetry, log and recovery."""
