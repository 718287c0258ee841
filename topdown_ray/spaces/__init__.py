"""Design spaces: what subnets are made of, what they cost, and how accurate a predictor takes them to be."""
