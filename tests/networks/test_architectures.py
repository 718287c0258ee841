"""Architectures from outside: JSON that is none, of any kind, is one line wherever an architecture is
read.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import SWEEP, assert_one_line, main_in_process
from support.sweeping import run
from support.tampering import rewritten

from topdown_ray.errors import UserError
from topdown_ray.networks.architectures import read_arch
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space
from topdown_ray.store.reading import SEARCH_KEYS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("3"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
DEEP = "[" * 100_000


@pytest.mark.parametrize("space", list(SPACES.values()), ids=lambda space: space.name)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_json_is_an_architecture_or_one_line(space: Space, data: st.DataObject) -> None:
    """One entry of a valid configuration is replaced, or a whole key, or everything."""
    config: Any = space.to_config(space.random(1, 3)[0])
    where = data.draw(st.sampled_from(["everything", *config]))
    value = data.draw(JSON)
    if where == "everything":
        config = value
    elif isinstance(config[where], list) and data.draw(st.booleans()):
        config[where][data.draw(st.integers(0, len(config[where]) - 1))] = value
    else:
        config[where] = value
    try:
        genes = space.from_config(config)
    except UserError as error:
        said = str(error)
    else:
        said = ""
        assert space.to_config(genes) == config
    assert not said or said.startswith("architecture: ")
    assert said.isprintable()
    assert len(said) < 700


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nan",
        "[]",
        "3",
        "{}",
        DEEP,
        '{"ks": ' + DEEP,
        '{"ks": 1' + "0" * 5000 + "}",
        '{"a": "\\u0000\\u001b[31m"}',
        None,
        3.5,
    ],
    ids=lambda text: str(text)[:8] or "empty",
)
def test_text_that_holds_no_architecture_is_one_line(text: Any) -> None:
    with pytest.raises(UserError, match=r"^here: ") as raised:
        MOBILENET_V3.parse(text, "here")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 700


def test_numbers_of_another_type_become_those_of_the_space() -> None:
    config = MOBILENET_V3.to_config(MOBILENET_V3.random(1, 0)[0])
    floats = {
        key: [float(x) for x in value] if isinstance(value, list) else float(value)
        for key, value in config.items()
    }
    _, found = read_arch(json.dumps(floats), {})
    assert json.dumps(found) == json.dumps(config)
    with pytest.raises(UserError, match=r"ks\[0\]: expected one of \[3, 5, 7\], found True"):
        MOBILENET_V3.from_config({**config, "ks": [True, *config["ks"][1:]]})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "out"
    run(SWEEP, out)
    return out


@pytest.mark.parametrize(
    "arch", ["{}", DEEP, "null", '{"ks": 3, "e": [3], "d": {}, "image_size": "x"}', None]
)
def test_rows_without_an_architecture(
    arch: str | None, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(searches: pd.DataFrame, trace: pd.DataFrame) -> None:
        searches["arch"] = arch

    folder = rewritten(finished, tmp_path / "out", change)
    data = tmp_path / "images"
    for arguments in (
        ["describe", folder, "--target", 300],
        ["export", folder, "--target", 300, "--format", "config", "--out", tmp_path / "x"],
        ["evaluate", folder, "--data", data],
    ):
        assert_one_line(main_in_process(arguments, capsys), "search ", ": arch: ", "expected ")
    verified = main_in_process(["verify", folder], capsys)
    assert verified.returncode == 1
    assert verified.stderr == ""
    assert "arch: 4 of 4 rows" in verified.stdout
    assert max(map(len, verified.stdout.splitlines())) <= 80


@pytest.mark.parametrize("column", ["space", "seed", "accuracy", "feasible", "predictor_name", "params_m"])
def test_rows_that_lack_a_value(
    column: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(searches: pd.DataFrame, trace: pd.DataFrame) -> None:
        searches[column] = searches[column].astype(object)
        searches.loc[1, column] = None

    folder = rewritten(finished, tmp_path / "out", change)
    for arguments in (
        ["describe", folder, "--target", 300],
        ["export", folder, "--target", 300, "--format", "config", "--out", tmp_path / "x"],
        ["evaluate", folder, "--data", tmp_path / "images"],
    ):
        # what tells rows apart is missed when they are loaded, and the file is named
        told = "expected a value in every row" if column in SEARCH_KEYS else "expected a value, found none"
        assert_one_line(main_in_process(arguments, capsys), "search", f": {column}: {told}")


def test_an_architecture_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deep.json").write_text(DEEP)
    (tmp_path / "latin.json").write_bytes(b'{"ks": "\xe9"}')
    for name, part in (
        ("deep.json", "expected JSON"),
        ("latin.json", "expected JSON"),
        ("none.json", "expected a result folder, a JSON file or JSON text, found no readable file"),
        ("x" * 300, "expected a result folder, a JSON file or JSON text, found no readable file"),
    ):
        assert_one_line(main_in_process(["describe", tmp_path / name], capsys), part)
    assert_one_line(main_in_process(["describe", "/dev/zero"], capsys), "found a pipe or device")
