"""Write local files atomically, and read JSON and YAML documents safely.

A file is written completely or not at all. Reading a document returns a value or raises one UserError that
names the file and the field. A document must be a regular file of bounded size without repeated keys and
without aliases that multiply, and a pydantic model validates its values."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import itertools
import json
import os
import re
import stat
import tempfile
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from topdown_ray.addresses import shown
from topdown_ray.errors import UserError, brief, one_line

TEMPORARY = ".tmp"  # the suffix of files that a killed writer leaves behind
_numbers = itertools.count()  # of temporary files in this process
LARGEST_DOCUMENT = 256 << 20  # bytes
_MOST_NODES = 20_000_000  # of a YAML document with its aliases expanded

Model = TypeVar("Model", bound=pydantic.BaseModel)


def data(name: str = "") -> Path:
    """Return the path of a file that comes with the package, or the folder of these files."""
    return Path(__file__).parent / "data" / name


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``. The file written there replaces ``path`` at the end of the
    block; after an exception it is deleted. Raises OSError.
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
    """Return the temporary path. Its name is short, so that it is valid if the name of ``path`` is."""
    return path.with_name(f".{path.name[:40]}.{os.getpid()}-{next(_numbers)}{TEMPORARY}")


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """Do the same as :func:`replacing` for a file that the user asked for. Raises UserError if it cannot be
    written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise UserError(
            f"{brief_path(path)}: expected a path that can be written, found {_reason(error)}"
        ) from error


@contextlib.contextmanager
def written_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder next to ``folder``. Its files are moved into ``folder`` at the end of the
    block; after an exception they are deleted.

    Afterwards, subfolders contain only the new files. Raises UserError.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name[:100]}.", dir=folder.parent) as temporary:
            yield Path(temporary)
            new = sorted(path.relative_to(temporary) for path in Path(temporary).rglob("*") if path.is_file())
            for path in new:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(temporary) / path).replace(folder / path)
            # delete the files of an earlier run that this one did not write
            for inner in {path.parent for path in new} - {Path()}:
                for path in (folder / inner).iterdir():
                    if path.is_file() and path.relative_to(folder) not in new:
                        path.unlink()
    except OSError as error:
        raise UserError(
            f"{brief_path(folder)}: expected a folder to write to, found {_reason(error)}"
        ) from error


def check_output(path: Path, option: str, folder: bool = False) -> None:
    """Raise UserError unless a file (or a folder) can be written here. Long work calls this before it begins.
    Leaves nothing behind.

    Missing parent folders are no mistake, because :func:`written` makes them. option: the start of the
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
    """Raise UserError unless this is a regular file of at most ``most`` bytes. Pipes and devices are not
    accepted, because reading them may never end.

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
    """Raise UserError unless this is a regular file; a missing file has a message of its own. what: the file
    in words.
    """
    try:
        missing = not path.exists()
    except (OSError, ValueError):  # a name that is too long or contains a NUL: reported below
        missing = False
    if missing:
        raise UserError(f"{brief_path(path)}: expected {what}, found no such file")
    check_regular(path, what)


def brief_path(path: Path | str) -> str:
    """Return a path as messages show it: one line of bounded length, without the secrets of a URI."""
    return one_line(shown(path), 300)


def read_bytes(path: Path, what: str, most: int = LARGEST_DOCUMENT) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes. what: the file in words. Raises
    UserError.
    """
    check_regular(path, what, most)
    try:
        with path.open("rb") as file:
            return file.read(most + 1)[:most]
    except OSError as error:
        raise UserError(
            f"{brief_path(path)}: expected {what}, found no readable file ({_reason(error)})"
        ) from error


def read_text(path: Path, what: str, most: int = LARGEST_DOCUMENT) -> str:
    """Return the content of a regular file as UTF-8 text. Raises UserError."""
    try:
        return read_bytes(path, what, most).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{brief_path(path)}: expected {what}, found bytes that are not UTF-8") from error


def read_json(path: Path, what: str) -> Any:
    """Return the value of a JSON file. Raises UserError."""
    return parse_json(read_bytes(path, what), brief_path(path))


def parse_json(text: bytes | str, where: str) -> Any:
    """Return the value of a JSON text. where: the start of the message of the UserError that it raises."""
    try:
        return json.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:
        # ValueError: also for bytes that are not UTF-8, and for numbers of thousands of digits
        raise UserError(f"{where}: expected JSON, found {one_line(error)}") from error


def read_yaml(path: Path, what: str, holds: str) -> Mapping[str, Any]:
    """Return the mapping in a YAML file. what, holds: the file and its mapping in words, for the UserError
    that it raises.

    Repeated keys and aliases that would multiply without bound raise it too.
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
        # PyYAML passes on Python's exceptions for a scalar that only looks like a date or number
        raise UserError(f"{brief_path(path)}: expected YAML, found {one_line(error)}") from error
    if not isinstance(data, Mapping):
        raise UserError(f"{brief_path(path)}: expected a mapping of {holds}, found {type(data).__name__}")
    return data


def _check_nodes(root: yaml.Node | None) -> None:
    """Raise UserError for repeated keys and for aliases that contain themselves or multiply."""
    # the number of nodes below a node, with aliases expanded; 0 while it is being counted
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
            raise UserError(f"expected at most {_MOST_NODES:,} values, found aliases that expand to more")
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
    """Validate the value of a document with a model. where: the start of the message of the UserError that it
    raises, which names the first wrong field.
    """
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        mistake = first_mistake(error, model)
    except RecursionError:
        mistake = "expected values nested a few levels deep, found more levels"
    # outside of the handlers, so that a caller in Python does not see pydantic's traceback as well
    raise UserError(f"{where}: {mistake}")


def first_mistake(error: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> str:
    """Return the first mistake of a validation as 'FIELD: expected X, found Y'."""
    mistakes = error.errors(include_url=False)
    # report an unknown key first, because it may be the misspelt name of a missing one
    first = next((each for each in mistakes if each["type"] == "extra_forbidden"), mistakes[0])
    field = one_line(".".join(str(part) for part in first["loc"]))
    message = one_line(first["msg"].removeprefix("Value error, "))
    if first["type"] == "extra_forbidden":
        known = _model_at(model, first["loc"][:-1]).model_fields
        return f"{field}: {unknown_key(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"{field}: expected a value, found none"
    if first["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{field}: expected a mapping, found {brief(first['input'])}"
    if first["type"] == "string_too_short":
        return f"{field}: expected non-empty text, found {brief(first['input'])}"
    if first["type"] == "value_error":
        return f"{field}: {message}" if field and not message.startswith(field) else message
    return f"{field}: {wrong_value(message, first['input'])}".removeprefix(": ")


def wrong_value(message: str, found: object) -> str:
    """Return pydantic's message about a value, such as "Input should be X", as "expected X, found Y"."""
    expected, _, _ = f"{message[0].lower()}{message[1:]}".partition(", unable to parse string")
    expected = re.sub(r"^input should be (?=greater|less)", "expected a number ", expected)
    expected = expected.replace("input should be", "expected")
    return f"{expected}, found {brief(found)}"


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return 'expected X, found Y' for a key that is not known, with the most similar one that is."""
    names = list(known)
    close = difflib.get_close_matches(key, names, 1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"expected one of the keys {', '.join(names)}, found an unknown key{meant}"


def _model_at(model: type[pydantic.BaseModel], location: tuple[int | str, ...]) -> type[pydantic.BaseModel]:
    """Return the model of a nested field, as far as the annotations lead to it."""
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
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compact_json(value: Any) -> str:
    """Return JSON with sorted keys and without spaces, so that equal values have equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def short_hash(text: str) -> str:
    """Return 80 bits of the SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def digest(value: Any) -> str:
    """Return a short content hash (80 bits) of a value that JSON can represent."""
    return short_hash(compact_json(value))
