"""The benchmarks of ``topdown-ray bench``: a race of implementations, the distance to the floor, the overhead
of the driver, and fronts.
"""
