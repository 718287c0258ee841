"""The output of all commands, for people and (with ``--json``) for programs, one file for each group of
commands.
"""
