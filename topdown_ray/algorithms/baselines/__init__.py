"""Other searches that this one is compared with."""
