"""Work with supernets: subnets are cut out, measured, trained on, exported, and recomputed by OFA's own
code.
"""
