#!/usr/bin/env bash
# A fresh machine's first command: makes .venv when missing, installs, runs the demo.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh ""
exec .venv/bin/topdown-ray demo "$@"
