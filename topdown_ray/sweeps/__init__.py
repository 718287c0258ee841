"""From a specification to tables: plan, dispatch, run, follow, verify."""
