"""Cut subnets out of supernets, measure and export them, train predictors on them, and recompute rows with
OFA's own code."""
