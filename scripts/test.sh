#!/usr/bin/env bash
# A fresh machine's second command: makes .venv when missing, installs with the test extra, runs lint, types and all tests.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh "[test]"
# A test opens the report in a real browser; without one (and without root to install it) that test skips and says so.
if ! command -v chromedriver >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && apt-get install -y -qq chromium chromium-driver fonts-dejavu-core >/dev/null
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# Two processes share the machine better than one uses it.
exec .venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"
