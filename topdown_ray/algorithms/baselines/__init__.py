"""Other searches for comparison."""
