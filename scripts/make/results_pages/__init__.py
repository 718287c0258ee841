"""The results pages of the documentation, and how their numbers are made, stored, printed and drawn."""
