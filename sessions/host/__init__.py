"""Access to the operating system: files, documents, processes, addresses, escapes."""
