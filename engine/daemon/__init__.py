"""The parts of the background process: its folder and lock, its connections, its children, its log, its recovery."""
