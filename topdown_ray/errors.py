"""The exceptions that end a command with a message of one line, and the form of values in such a message."""

from __future__ import annotations

import reprlib

_MOST_SHOWN = 120  # characters of a value in a message


class UserError(Exception):
    """A mistake in a command, file or artefact; the command line prints it as one line and exits with status
    2.
    """


class StartError(Exception):
    """No process can be started that runs shards. The sweep ends at once with the cause and exit status 1."""


class StoreError(Exception):
    """Results cannot be written, for example because the disk is full. The sweep ends at once with exit
    status 1; finished searches are kept.
    """


def brief(value: object, most: int = _MOST_SHOWN) -> str:
    """Return a value as a message shows it: one line of at most ``most`` characters, even if the value is
    large or deeply nested.
    """
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 3, most, most
    try:
        text = short.repr(value)
    except Exception:  # an integer of thousands of digits, or an object whose repr fails
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def one_line(text: object, most: int = 300) -> str:
    """Return text from elsewhere (for example another library's error) as one line, without control
    characters and cut after ``most`` characters.
    """
    line = " ".join("".join(character if character.isprintable() else " " for character in str(text)).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
