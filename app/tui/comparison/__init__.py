"""The Diff of two sessions, which several modes open."""
