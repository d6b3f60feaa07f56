"""`kvdeck session …`."""
