#!/usr/bin/env bash
# Builds a folder that can be thrown away: the project's environment, and on top of it the packages that only
# `topdown-ray bench fronts` compares with (pymoo, pyribs, OFA², DyNAS-T) and moocore.
#
#   scripts/benchmarks/fronts_env.sh FOLDER
#   FOLDER/bin/python -m topdown_ray bench fronts --quick
#
# PYTHON names the interpreter of the project's environment (default: .venv/bin/python). Nothing is installed
# there. OFA² and DyNAS-T are installed without their dependencies. The benchmark does not need these, and
# those of DyNAS-T (fairseq, transformers) conflict with the project's.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
cd_before=$PWD
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
folder=$(cd "$cd_before" && mkdir -p "$1" && cd "$1" && pwd)
"$python" -m venv "$folder"
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
own=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf 'import site; site.addsitedir(%s)\n' "'$site'" > "$own/project_environment.pth"
"$folder/bin/python" -m pip install --quiet "moocore>=0.3" "pymoo>=0.6" "ribs>=0.12"
"$folder/bin/python" -m pip install --quiet --no-deps ofa2==0.1.0.post202306071524 dynast==1.6.0
echo "$folder/bin/python -m topdown_ray bench fronts --quick"
