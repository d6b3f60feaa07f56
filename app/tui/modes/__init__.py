"""One folder per mode; no mode imports another."""
