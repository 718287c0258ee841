"""The command line, whose commands parse their options, call one function of another room and print the
result.
"""
