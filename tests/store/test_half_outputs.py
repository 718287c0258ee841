"""A full disk while an export is written: one line, and nothing half-written is left; cells of a report that
begin as formulas.
"""

import csv
import errno
import io
import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.architectures import an_arch
from support.commands import assert_one_line, main_in_process
from support.tiny import untrained

from topdown_ray.errors import UserError
from topdown_ray.networks import export
from topdown_ray.networks.weights import find_weights
from topdown_ray.report.page import Table, csv_of, text
from topdown_ray.spaces import latency_table
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.resnet50d import RESNET50D


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file grows above 4,000 bytes: a write beyond fails in the middle, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def shipped() -> str:
    return next(name for name, of_space in latency_table.shipped().items() if MOBILENET_V3.name in of_space)


@pytest.mark.parametrize("form", ["torch", pytest.param("onnx", marks=pytest.mark.slow)])
def test_an_export_is_whole_or_not_there(form: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    checkpoint = find_weights(str(untrained(tmp_path / "w.safetensors", RESNET50D)), None)
    (tmp_path / "there").mkdir()
    request.getfixturevalue("small_files")
    for out in (tmp_path / "new", tmp_path / "there"):
        with pytest.raises(
            UserError, match=f"--out {out}: expected a folder to write to, found {os.strerror(errno.EFBIG)}"
        ):
            export.export(checkpoint, an_arch(RESNET50D), form, out, {})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["there", "w.safetensors"]


def test_exported_tables_are_whole_or_not_there(
    tmp_path: Path, small_files: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: list[object] = ["table", shipped(), "--export-yaml", tmp_path]
    (tmp_path / "192_lookup_table.yaml").write_text("as it was")
    assert_one_line(
        main_in_process(arguments, capsys),
        "_lookup_table.yaml: expected a path that can be written",
        os.strerror(errno.EFBIG),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["192_lookup_table.yaml"]
    assert (tmp_path / "192_lookup_table.yaml").read_text() == "as it was"


def test_exported_tables_into_a_file_and_a_folder_that_cannot_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        result = main_in_process(["table", shipped(), "--export-yaml", folder], capsys)
        assert_one_line(result, "--export-yaml: expected a folder that can be written")
    whole = main_in_process(
        ["table", shipped(), "--export-yaml", tmp_path / "new" / "tables", "--json"], capsys
    )
    assert sorted(json.loads(whole.stdout)) == sorted(map(str, (tmp_path / "new" / "tables").iterdir()))


def test_no_cell_of_a_report_is_a_formula(tmp_path: Path) -> None:
    texts = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "plain", "a=b", "", "'quoted'"]
    frame = pd.DataFrame({"what": texts, "=value": [-1.5] * len(texts), "n": range(len(texts))})
    Table("facts", "Facts", frame, [text("what")]).write(tmp_path)
    with (tmp_path / "facts.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["what", "'=value", "n"]
    assert [row[0] for row in rows] == [*(f"'{cell}" for cell in texts[:5]), "'\n=1", *texts[6:]]
    assert {row[1] for row in rows} == {"-1.5"}  # numbers stay numbers


@settings(max_examples=100, deadline=None)
@given(cells=st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_text_cells_come_back_behind_at_most_an_apostrophe(cells: list[str]) -> None:
    read = [
        row[0] for row in csv.reader(io.StringIO(csv_of(pd.DataFrame({"a": cells, "b": 1})), newline=""))
    ][1:]
    assert len(read) == len(cells)
    for found, cell in zip(read, cells, strict=True):
        assert found.removeprefix("'") == cell.replace("\r", "\n").removeprefix("'")
        assert not found.startswith(("=", "+", "-", "@", "\t", "\r"))
