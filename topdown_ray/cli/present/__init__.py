"""Print the results of all commands, for people and (with ``--json``) for programs, with one module for each
group of commands."""
