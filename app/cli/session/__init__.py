"""The commands of `kvdeck session`."""
