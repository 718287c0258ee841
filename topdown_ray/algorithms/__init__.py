"""The search algorithms: strategies, evolution, proposals, memory and random numbers."""
