"""Folder on the PYTHONPATH of traced commands; contains only `sitecustomize`."""
