"""The panes of the Monitor screen."""
