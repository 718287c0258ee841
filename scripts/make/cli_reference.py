"""Write docs/reference/cli.md, the reference of all commands and options, from the program itself.

python scripts/make/cli_reference.py [--out FILE]
"""

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "docs" / "reference" / "cli.md")
    out = parser.parse_args().out
    command = [
        sys.executable,
        "-m",
        "typer",
        "topdown_ray.cli.main",
        "utils",
        "docs",
        "--name",
        "topdown-ray",
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line.rstrip() for line in text.strip().splitlines()]
    out.write_text("<!-- made by scripts/make/cli_reference.py -->\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
