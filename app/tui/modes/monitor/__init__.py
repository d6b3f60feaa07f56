"""The Monitor screen: history, annotations, alerts, replay, and figures derived from telemetry samples."""
