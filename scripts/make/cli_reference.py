"""Write docs/reference/cli.md, the reference of all commands and options, from the program itself.

python scripts/make/cli_reference.py [--out FILE]
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

INTRODUCTION = Path(__file__).with_suffix(".md")
HEADING = re.compile(r"(?m)^##+ `topdown-ray (?P<name>[^`]+)`\n\n(?P<help>.+?)\n\n", re.DOTALL)


def program() -> str:
    """What typer says of the program."""
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
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def readable(text: str) -> str:
    """Plain blocks, whole sentences in the lists of commands, and links to the commands."""
    sentences = {
        found["name"]: re.split(r"(?<=\.)\s", " ".join(found["help"].split()))[0]
        for found in HEADING.finditer(text)
    }

    def listed(found: re.Match[str]) -> str:
        *_, group = ["", *(part["name"] for part in HEADING.finditer(text, 0, found.start()))]

        def entry(line: re.Match[str]) -> str:
            name = f"{group} {line[1]}".strip()
            return f"* [`{line[1]}`](#topdown-ray-{name.replace(' ', '-')}): {sentences[name]}"

        return re.sub(r"(?m)^\* `([\w-]+)`: .*$", entry, found[0])

    text = re.sub(r"(?ms)^\*\*Commands\*\*:\n\n.*?\n(?=\n)", listed, text)
    text = re.sub(r"<(int|float) range>", r"<\1>", text)
    return re.sub(r"<list\[(\w+)\]>", r"<\1>", text).replace("```console\n$ ", "```text\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
    )
    out = parser.parse_args().out
    text = readable("\n".join(line.rstrip() for line in program().strip().splitlines()))
    mark = "<!-- made by scripts/make/cli_reference.py -->"
    out.write_text(f"{mark}\n\n{INTRODUCTION.read_text()}\n#{text}\n")  # the program is a section of the page


if __name__ == "__main__":
    main()
