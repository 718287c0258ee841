"""Images from outside: what is dangerous, too large or broken counts as an image that does not decode;
folders without loops.
"""

import io
import os
import shutil
import stat
import struct
import warnings
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image
from support.tiny import few_digits

from topdown_ray.errors import UserError
from topdown_ray.networks.images import FORMATS, ImageData, Loader, Settings, find_images, read_image
from topdown_ray.networks.weights import Description

DESCRIPTION = Description(space="resnet50d", n_classes=10, image_sizes=(128,))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_digits(tmp_path_factory.mktemp("data") / "digits", train=2, val=2)


@pytest.fixture
def data(digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits, tmp_path / "digits"))


def found(data: Path, bad: str = "skip") -> ImageData:
    return find_images(data, DESCRIPTION, Settings(bad=bad))  # type: ignore[arg-type]


def decoded(data: Path) -> tuple[int, int]:
    """Of the validation images those that decode, and those that do not."""
    batches = list(Loader(found(data)).validation(128))
    return sum(len(batch.labels) for batch in batches), sum(batch.bad for batch in batches)


def assert_strict_names(data: Path, path: Path, message: str) -> None:
    """Unless images are skipped, the file is named, by the scan or by the loader."""
    with pytest.raises(
        UserError, match=rf"{path.name}: expected an image.*{message}.*; --bad skip leaves it out"
    ):
        list(Loader(found(data, "error")).validation(128))


def png(width: int, height: int) -> bytes:
    """A PNG of this size, all black, one bit a pixel: a few hundred kilobytes decode to gigabytes."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_an_eps_named_png_runs_no_program(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program named gs, in the place of Ghostscript, leaves a file behind whenever it is run."""
    marker, program = tmp_path / "it ran", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n: > '{marker}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow remembers where it was
    path = data / "val" / "3" / "0.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(OSError), Image.open(path) as image:  # it wrote no picture
        image.load()
    assert marker.exists()  # so it would run, if Pillow were free to choose
    marker.unlink()
    assert decoded(data) == (20, 1)
    assert_strict_names(data, path, "cannot identify image file")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (20_000, 20_000, "at most 89,478,485 pixels"),  # Pillow refuses
        (12_000, 8_000, "at most 89,478,485 pixels"),  # Pillow warns
        (30_000, 10, "found 30000 x 10"),  # small until it is resized
    ],
)
def test_decompression_bombs(width: int, height: int, message: str, data: Path) -> None:
    path = data / "val" / "3" / "0.png"
    path.write_bytes(png(width, height))
    assert path.stat().st_size < 100_000
    with warnings.catch_warnings():
        # as where no test turns it into an error
        warnings.simplefilter("default", Image.DecompressionBombWarning)
        assert decoded(data) == (20, 1)
        assert_strict_names(data, path, message)


def test_pixels_are_bounded_whatever_pillow_allows(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = data / "val" / "3" / "0.png"
    path.write_bytes(png(12_000, 8_000))
    with pytest.raises(
        UserError, match=r"0.png: expected an image of at most 89,478,485 pixels.* found 12000 x 8000"
    ):
        read_image(path)


def test_files_that_are_none_or_too_large(data: Path) -> None:
    """A pipe, an endless device, a link that leads nowhere, a terabyte of nothing: found without being
    read.
    """
    folder = data / "val" / "3"
    os.mkfifo(folder / "pipe.png")
    assert stat.S_ISFIFO((folder / "pipe.png").stat().st_mode)
    special = {
        "pipe.png": "found a pipe or device",
        "zero.png": "found a pipe or device",
        "gone.png": "found no readable file",
        "huge.png": "found 1,099,511,627,776",
    }
    for name, message in special.items():
        for old in folder.glob("[pzgh]*.png"):
            old.unlink()
        if name == "pipe.png":
            os.mkfifo(folder / name)
        elif name == "huge.png":
            with (folder / name).open("wb") as file:
                file.truncate(1 << 40)
        else:
            (folder / name).symlink_to("/dev/zero" if name == "zero.png" else "nowhere")
        assert decoded(data) == (20, 1)
        assert_strict_names(data, folder / name, message)


def test_links_to_folders_are_not_followed(data: Path) -> None:
    """A loop counted each image of its class up to forty times."""
    whole = found(data, "error")
    (data / "val" / "4" / "loop").symlink_to(".")
    (data / "train" / "4" / "up").symlink_to("..")
    with pytest.raises(
        UserError,
        match=r"4/(up|loop): expected images, found a link to a folder; --bad skip leaves it out",
    ):
        found(data, "error")
    assert found(data).validation == whole.validation
    assert set(found(data).calibration) == set(whole.calibration)
    assert decoded(data) == (20, 0)
    (data / "val" / "4" / "loop").unlink()
    (data / "train" / "4" / "up").unlink()
    inner = data / "val" / "4" / "inner"
    inner.mkdir()
    first = next(path for path in sorted((data / "val" / "4").iterdir()) if path.is_file())
    first.rename(inner / first.name)
    (data / "val" / "4" / "link.png").symlink_to(inner / first.name)
    assert len(found(data, "error").validation) == 21  # folders and links to images count
    moved = Path(shutil.move(data / "val" / "5", data.parent / "five"))
    (data / "val" / "5").symlink_to(moved)
    assert len(found(data, "error").validation) == 21  # and a class may be a link


def file_of(form: str) -> bytes:
    sink = io.BytesIO()
    Image.effect_noise((24, 20), 50).convert("RGB").save(sink, form)
    return sink.getvalue()


FILES = {form: file_of(form) for form in FORMATS}


@pytest.mark.parametrize("form", FORMATS)
def test_the_formats_of_image_folders_are_read(form: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpeg"
    path.write_bytes(FILES[form])
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (24, 20))


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what it found in the file
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_is_an_image_or_one_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(FILES[data.draw(st.sampled_from(FORMATS))])
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 6))):
        if content:
            content[data.draw(st.integers(0, min(len(content), 200) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(content)
    try:
        said = read_image(path).mode
    except UserError as error:
        said = str(error)
    assert said == "RGB" or said.startswith(f"{path}: expected an image")
    assert said.isprintable()
    assert len(said) < 700
