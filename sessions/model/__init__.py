"""Record types of sessions: results, events, telemetry totals and their codec."""
