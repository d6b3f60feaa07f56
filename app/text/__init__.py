"""Plain text shared by the command line and the deck; imports neither click nor textual."""
