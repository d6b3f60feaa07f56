"""Models by name, as YAML; each file holds a list, `engine/planning/model_files.py` reads them."""
