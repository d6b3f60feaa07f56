"""Mode 5: traffic patterns between ranks."""
