"""The YAML blocks of the guides are sweep files, or parts of one that can be added to a small one."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from topdown_ray.sweeps.spec import make_spec

GUIDES = ROOT / "docs" / "guides"
SMALL: dict[str, Any] = {
    "name": "small",
    "spaces": ["mobilenet_v3"],
    "strategies": ["top_down", "joint"],
    "cost": "note10",
    "targets": [40, 30],
    "seeds": 5,
}
BLOCKS = [
    (page, block)
    for page in (GUIDES / "sweep-files.md", GUIDES / "limits.md", GUIDES / "devices.md")
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
]


def test_there_are_blocks() -> None:
    assert len(BLOCKS) > 10


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=lambda value: getattr(value, "stem", ""))
def test_a_block_is_a_sweep_or_part_of_one(page: Path, block: str) -> None:
    fields = yaml.safe_load(block)
    spec = make_spec({**SMALL, **fields}, page.name)
    assert set(fields) <= set(type(spec).model_fields)
    assert spec.n_searches() > 0


def test_the_seeds_of_the_guide_are_those_of_its_text() -> None:
    """``seeds`` in its three forms: the seeds 0 to 9, two seeds, and the seeds 10 to 19."""
    found = [
        make_spec({**SMALL, **yaml.safe_load(block)}, page.name).seeds
        for page, block in BLOCKS
        if page.stem == "sweep-files" and block.startswith("seeds:")
    ]
    assert found == [tuple(range(10)), (3, 7), tuple(range(10, 20))]
