"""The model catalogue: YAML files, each with a list of models, read by `engine/planning/model_files.py`."""
