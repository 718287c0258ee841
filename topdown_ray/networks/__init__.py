"""Supernets at work: subnets cut out, measured, trained on, exported, and recomputed by OFA's own code."""
