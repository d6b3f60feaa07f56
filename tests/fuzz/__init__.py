"""Valid files and messages, mutated by a seed, and kvdeck's own readers and printers run on them."""
