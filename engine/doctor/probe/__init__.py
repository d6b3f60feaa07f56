"""Small real transfers that show whether a backend works here; run in a child process that may hang or crash."""
