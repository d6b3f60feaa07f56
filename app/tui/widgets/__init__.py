"""Line-API widgets that repaint only the rows that differ."""
