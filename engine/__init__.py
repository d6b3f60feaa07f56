"""Everything that happens off the screen: planning, transfers, the background process."""
