#!/usr/bin/env bash
# Create .venv if it is missing, install the extra test, and run the linter, the type checker and all tests.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh "[test]"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# One process more than a small machine has cores: many tests wait for Ray to start or for a process to end.
exec .venv/bin/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder "$@"
