"""File formats of other programs, and exports of sessions."""
