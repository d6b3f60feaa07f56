"""Sessions that hold what the Monitor watched: their moments, their marks, and what the whole comes to."""
