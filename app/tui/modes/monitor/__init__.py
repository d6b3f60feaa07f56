"""What the Monitor screen works out by itself: its past, its marks, and figures from several sources side by side."""
