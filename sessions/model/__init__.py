"""What a measurement is: records, events and their codec."""
