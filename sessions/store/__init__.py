"""Storage of sessions on disk: folders, files, index and locks."""
