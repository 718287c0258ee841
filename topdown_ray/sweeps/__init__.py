"""Sweeps, from a specification to result tables: plan, dispatch, run, follow, verify."""
