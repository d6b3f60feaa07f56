"""Doctor: which paths and backends work on this host, and why the others don't."""
