"""Local files: written whole or not at all. Documents from outside: bounded, parsed, held against a model.

Whatever a document holds, reading it ends with a value or with one UserError that names the file and the
field: a document is a regular file of bounded size, YAML aliases may not multiply, keys may not repeat, and a
pydantic model says what the values are."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import stat
import tempfile
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from topdown_ray.addresses import shown
from topdown_ray.errors import UserError, brief, one_line

TEMPORARY = ".tmp"  # the suffix of what a killed writer leaves
_numbers = itertools.count()  # of temporary files in this process
LARGEST_DOCUMENT = 256 << 20  # bytes
_MOST_NODES = 20_000_000  # of a YAML document, aliases written out

Model = TypeVar("Model", bound=pydantic.BaseModel)


def data(name: str = "") -> Path:
    """A file that comes with the package, or the folder of all of them."""
    return Path(__file__).parent / "data" / name


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; what was written there takes its place at the end, or is gone. Raises
    OSError.
    """
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """The temporary name; short, so that it is possible wherever the name itself is."""
    return path.with_name(f".{path.name[:40]}.{os.getpid()}-{next(_numbers)}{TEMPORARY}")


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """As :func:`replacing`, for a file that the user asked for: raises UserError where it cannot be
    written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise UserError(
            f"{brief_path(path)}: expected a place to write to, found {_reason(error)}"
        ) from error


@contextlib.contextmanager
def written_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder``; its files move into ``folder`` at the end, or are gone.

    Subfolders hold the new files alone afterwards. Raises UserError.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name[:100]}.", dir=folder.parent) as temporary:
            yield Path(temporary)
            new = sorted(path.relative_to(temporary) for path in Path(temporary).rglob("*") if path.is_file())
            for path in new:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(temporary) / path).replace(folder / path)
            # what an earlier run wrote and this one did not
            for inner in {path.parent for path in new} - {Path()}:
                for path in (folder / inner).iterdir():
                    if path.is_file() and path.relative_to(folder) not in new:
                        path.unlink()
    except OSError as error:
        raise UserError(
            f"{brief_path(folder)}: expected a folder to write to, found {_reason(error)}"
        ) from error


def check_output(path: Path, option: str, folder: bool = False) -> None:
    """Raise UserError unless a file, or else a folder, can be written here: long work asks before it begins.
    Leaves nothing behind.

    Folders that are missing on the way count as possible: :func:`written` makes them. option: begins the
    message."""
    expected = f"{option}: expected a {'folder' if folder else 'file'} that can be written"
    try:
        here = path if folder else path.absolute().parent
        if not folder and path.exists() and not path.is_file():
            found = "a folder" if path.is_dir() else "a pipe or device"
            raise UserError(f"{expected}, found {found}: {brief_path(path)}")
        nearest = next(place for place in (here.absolute(), *here.absolute().parents) if place.exists())
        if not nearest.is_dir():
            raise UserError(f"{expected}, found that {brief_path(nearest)} is a file")
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except (OSError, ValueError) as error:
        raise UserError(f"{expected}, found {brief_path(path)} ({_reason(error)})") from error


def check_regular(path: Path, what: str, most: int | None = None) -> None:
    """Raise UserError unless this is a regular file (no folder, pipe or device, which may never end) of at
    most ``most`` bytes.

    what: the file in words.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(
            f"{brief_path(path)}: expected {what}, found no readable file ({_reason(error)})"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        found = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise UserError(f"{brief_path(path)}: expected {what}, found {found}")
    if most is not None and status.st_size > most:
        raise UserError(
            f"{brief_path(path)}: expected {what} of at most {most:,} bytes, found {status.st_size:,}"
        )


def check_file(path: Path, what: str) -> None:
    """Raise UserError unless this is a regular file; one that does not exist is called so. what: the file in
    words.
    """
    try:
        missing = not path.exists()
    except (OSError, ValueError):  # a name that is too long or holds a NUL: said below
        missing = False
    if missing:
        raise UserError(f"{brief_path(path)}: expected {what}, found no such file")
    check_regular(path, what)


def brief_path(path: Path | str) -> str:
    """A path as messages name it: on one line, of bounded length, and without the secrets of a URI."""
    return one_line(shown(path), 300)


def read_bytes(path: Path, what: str, most: int = LARGEST_DOCUMENT) -> bytes:
    """The content of a regular file of at most ``most`` bytes. what: the file in words. Raises UserError."""
    check_regular(path, what, most)
    try:
        with path.open("rb") as file:
            return file.read(most + 1)[:most]
    except OSError as error:
        raise UserError(
            f"{brief_path(path)}: expected {what}, found no readable file ({_reason(error)})"
        ) from error


def read_text(path: Path, what: str, most: int = LARGEST_DOCUMENT) -> str:
    """The same as UTF-8 text. Raises UserError."""
    try:
        return read_bytes(path, what, most).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{brief_path(path)}: expected {what}, found bytes that are not UTF-8") from error


def read_json(path: Path, what: str) -> Any:
    """A JSON file's value. Raises UserError."""
    return parse_json(read_bytes(path, what), brief_path(path))


def parse_json(text: bytes | str, where: str) -> Any:
    """The value of a JSON text. where: begins the message of the UserError that it raises."""
    try:
        return json.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:
        # also bytes that are not UTF-8, and numbers of thousands of digits
        raise UserError(f"{where}: expected JSON, found {one_line(error)}") from error


def read_yaml(path: Path, what: str, holds: str) -> Mapping[str, Any]:
    """A YAML file that holds a mapping. what, holds: the file and its mapping in words, for the UserError
    that it raises.

    Keys that repeat are refused, and so are aliases that would multiply beyond all bounds.
    """
    text = read_text(path, what)
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        try:
            node = loader.get_single_node()
            _check_nodes(node)
            data = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except UserError as error:
        raise UserError(f"{brief_path(path)}: {error}") from error
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
        AttributeError,
        IndexError,
        KeyError,
    ) as error:
        # PyYAML lets through what Python says of a scalar that looks like a date or number and is none
        raise UserError(f"{brief_path(path)}: expected YAML, found {one_line(error)}") from error
    if not isinstance(data, Mapping):
        raise UserError(f"{brief_path(path)}: expected a mapping of {holds}, found {type(data).__name__}")
    return data


def _check_nodes(root: yaml.Node | None) -> None:
    """Raise UserError for keys that repeat and for aliases that contain themselves or multiply."""
    # of a node with all that is below it, aliases written out; 0 while it is being counted
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 0
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                _check_keys(node)
                children = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            sizes[id(node)] = 1 + sum(map(size, children))
        elif sizes[id(node)] == 0:
            raise UserError("expected YAML without an alias inside its own anchor, found one")
        if sizes[id(node)] > _MOST_NODES:
            raise UserError(f"expected at most {_MOST_NODES:,} values, found aliases that stand for more")
        return sizes[id(node)]

    if root is not None:
        size(root)


def _check_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.tag.endswith((":int", ":float", ":bool", ":null", ":timestamp")):
                raise UserError(
                    f"expected text as keys, found {brief(key.value)} in line {key.start_mark.line + 1}"
                )
            if (key.tag, key.value) in seen:
                raise UserError(
                    f"expected distinct keys, found {brief(key.value)} again in line "
                    f"{key.start_mark.line + 1}"
                )
            seen.add((key.tag, key.value))


def validated(model: type[Model], data: Any, where: str) -> Model:
    """A document's value as a model. where: begins the message of the UserError that it raises, which names
    the first wrong field.
    """
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        mistake = first_mistake(error, model)
    except RecursionError:
        mistake = "expected values nested a few levels deep, found more"
    # outside of the handlers: a caller in Python sees one line, not pydantic's traceback as well
    raise UserError(f"{where}: {mistake}")


def first_mistake(error: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> str:
    """The first mistake of a validation, as 'field: what was expected, what was found'."""
    mistakes = error.errors(include_url=False)
    # an unknown key first: it may be the misspelt name of one that is missing
    first = next((each for each in mistakes if each["type"] == "extra_forbidden"), mistakes[0])
    field = one_line(".".join(str(part) for part in first["loc"]))
    message = one_line(first["msg"].removeprefix("Value error, "))
    if first["type"] == "extra_forbidden":
        known = _model_at(model, first["loc"][:-1]).model_fields
        return f"{field}: expected one of the keys {', '.join(known)}, found an unknown key"
    if first["type"] == "missing":
        return f"{field}: expected a value, found none"
    if first["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{field}: expected a mapping, found {brief(first['input'])}"
    if first["type"] == "string_too_short":
        return f"{field}: expected a text that is not empty, found {brief(first['input'])}"
    if first["type"] == "value_error":
        return f"{field}: {message}" if field and not message.startswith(field) else message
    expected = f"{message[0].lower()}{message[1:]}".replace("input should be", "expected")
    return f"{field}: {expected}, found {brief(first['input'])}".removeprefix(": ")


def _model_at(model: type[pydantic.BaseModel], location: tuple[int | str, ...]) -> type[pydantic.BaseModel]:
    """The model of a nested field, as far as its annotations tell."""
    for part in location:
        field = model.model_fields.get(str(part))
        kinds = () if field is None else (field.annotation, *typing.get_args(field.annotation))
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)]
        if not models:
            break
        model = models[0]
    return model


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or one_line(error)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compact_json(value: Any) -> str:
    """JSON with sorted keys and without spaces: equal values have equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def short_hash(text: str) -> str:
    """80 bits of SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def digest(value: Any) -> str:
    """A short content hash (80 bits) of anything that JSON can hold."""
    return short_hash(compact_json(value))
