"""``python -m topdown_ray``."""

from topdown_ray.cli import main

main()
