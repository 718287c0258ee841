# demo.sh and test.sh source this file. It creates .venv if it is missing, and installs the project with the extra in $1.
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $python: expected Python 3.11 or newer, found $("$python" --version)" >&2; exit 2; }
[ -x .venv/bin/python ] || "$python" -m venv .venv
stamp=.venv/.installed-$(cat pyproject.toml constraints.txt scripts/install.sh | sha256sum | cut -c1-16)${1//[^a-z]/}
if [ ! -e "$stamp" ]; then
  echo "Installing into .venv (several minutes the first time: torch and ray are large) ..."
  .venv/bin/python -m pip install --quiet --upgrade pip
  .venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".$1"
  touch "$stamp"
fi
