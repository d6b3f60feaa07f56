"""The processes of one run, and how they meet."""
