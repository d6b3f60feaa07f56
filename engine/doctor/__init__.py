"""Which path can run here by which backend, and if not, why."""
