"""Plan, run, follow and verify sweeps, from a specification to result tables."""
