"""Models by name, as YAML; each file holds a list, `engine/kv/reading.py` reads them."""
