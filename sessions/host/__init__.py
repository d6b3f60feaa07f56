"""What the operating system gives: files, documents, processes, names, escapes."""
