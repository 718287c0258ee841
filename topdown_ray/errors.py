"""Define the exceptions that end a command with a message of one line, and the form of values in such a
message."""

from __future__ import annotations

import math
import reprlib

_MOST_SHOWN = 120  # characters of a value in a message


class UserError(Exception):
    """A mistake in an argument, a file or an artefact.

    The message is one line that names the field or file, what was expected and what was found. The command
    line prints it and exits with status 2."""


class StartError(Exception):
    """Nothing can run shards, for example because no actor starts. The message names the cause, and the
    command line exits with status 1.
    """


class StoreError(Exception):
    """Results cannot be written, for example because the disk is full. Finished shards are kept, and the
    command line exits with status 1.
    """


def brief(value: object, most: int = _MOST_SHOWN) -> str:
    """Return a value in one line of at most ``most`` characters, no matter how large or deep the value is."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 3, most, most
    try:
        text = short.repr(value)
    except Exception:  # an integer of thousands of digits, or an object whose repr fails
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def rounded_up(value: float) -> str:
    """Return a lowest value with three decimals, rounded up so that it can be typed as a target or limit."""
    return f"{math.ceil(1000 * value) / 1000:.3f}"


def one_line(text: object, most: int = 300) -> str:
    """Return foreign text, such as the error of another library, in one line without control characters, cut
    after ``most`` characters.
    """
    line = " ".join("".join(character if character.isprintable() else " " for character in str(text)).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
