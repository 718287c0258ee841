"""Define the design spaces: the choices of their subnets, their costs, and their accuracy predictors."""
