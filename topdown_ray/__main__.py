"""Run the command line as ``python -m topdown_ray``."""

from topdown_ray.cli.main import main

main()
