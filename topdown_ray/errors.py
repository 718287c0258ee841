"""The exceptions that end a command with one line: what was expected, what was found; and how a value is
shown in such a line.
"""

from __future__ import annotations

import reprlib

_MOST_SHOWN = 120  # characters of a value in a message


class UserError(Exception):
    """A mistake in a command, file or artefact; the command line prints it as one line and exits with status
    2.
    """


class StartError(Exception):
    """Nothing can run shards: the sweep ends at once, with the cause and exit status 1."""


class StoreError(Exception):
    """Results cannot be written (a full disk, say): the sweep ends at once; what is finished stays, exit
    status 1.
    """


def brief(value: object, most: int = _MOST_SHOWN) -> str:
    """A value as a message shows it: one line of at most ``most`` characters, however large or deep the value
    is.
    """
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 3, most, most
    try:
        text = short.repr(value)
    except Exception:  # a whole number of thousands of digits, an object whose repr fails
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def one_line(text: object, most: int = 300) -> str:
    """Text from elsewhere (another library's error, say) on one line, without control characters, cut after
    ``most`` characters.
    """
    line = " ".join("".join(character if character.isprintable() else " " for character in str(text)).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
