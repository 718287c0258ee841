#!/usr/bin/env bash
# Set up a fresh machine: create .venv if it is missing, install the package, and run the demo.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh ""
exec .venv/bin/topdown-ray demo "$@"
