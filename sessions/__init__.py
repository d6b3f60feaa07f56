"""What a measurement is, and how it is kept."""
