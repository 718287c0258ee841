"""Parse the options of each command, call one function of another room, and print the result."""
