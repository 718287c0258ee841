"""Write constraints.txt: the versions in the environment that runs this, of every package that the project
needs, its extras included.

Packages of CUDA are left out: they are torch's own requirements, pinned by it, and other platforms have none.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEADER = """\
# The versions that the tests ran with: `pip install --constraint constraints.txt .` installs the same ones.
# Made by scripts/make/constraints.py. torch's CUDA packages are not listed, since torch pins its own.
"""
OF_THE_PLATFORM = re.compile(r"nvidia-|cuda-|triton$")


def needed(name: str, extras: frozenset[str] = frozenset()) -> dict[str, str]:
    """The package and all that it requires here, with their versions."""
    found: dict[str, str] = {}
    waiting, seen = [(name, extras)], set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:  # required on other platforms only
            continue
        found[canonicalize_name(name)] = package.version
        waiting += [
            (canonicalize_name(requirement.name), frozenset(requirement.extras))
            for requirement in map(Requirement, package.requires or [])
            if requirement.marker is None
            or any(requirement.marker.evaluate({"extra": extra}) for extra in {"", *extras})
        ]
    return found


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "constraints.txt"
    packages = needed("topdown-ray", frozenset({"all", "docs", "test"}))
    del packages["topdown-ray"]
    lines = [f"{name}=={version.partition('+')[0]}\n" for name, version in sorted(packages.items())]
    path.write_text(
        HEADER + "".join(line for line in lines if not OF_THE_PLATFORM.match(line.partition("==")[0]))
    )


if __name__ == "__main__":
    main()
