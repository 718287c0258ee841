"""The search itself: strategies, evolution, proposals, memory, random numbers."""
