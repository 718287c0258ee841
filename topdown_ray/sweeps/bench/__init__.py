"""``topdown-ray bench``: contestants side by side, the distance to the floor, what the driver costs."""
