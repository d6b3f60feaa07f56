"""KV-cache sizes: models, layouts, plans and nixlbench parameters; pure arithmetic."""
