"""Themes as YAML, and the style sheet all screens share."""
