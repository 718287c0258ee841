"""Search for architectures: strategies, evolution, proposals, caches and random numbers."""
