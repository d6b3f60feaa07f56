"""Models, layouts and plans: pure arithmetic."""
