"""Files of records that people wrote by hand: read whole, checked, and named in every error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phi3_industry.errors import TrainingDataError

__all__ = ["MOST_CHARS", "check_text", "parse_object", "read_text"]

MOST_CHARS = 1_000_000
"""More characters than this in one text are a mistake, such as a whole file in one record."""


def read_text(path: Path, *, missing: str = "There is no file '{path}'.") -> str:
    """Read a file as UTF-8 text, with or without a byte order mark.

    Args:
        path: The file.
        missing: The message if there is none; ``{path}`` stands for the file.

    Raises:
        FileNotFoundError: There is no such file.
        TrainingDataError: It is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise FileNotFoundError(missing.replace("{path}", str(path))) from error
    except UnicodeDecodeError as error:
        raise TrainingDataError(
            f"The file is not UTF-8 text (byte {error.start}). Save it as UTF-8.", source=path
        ) from error


def parse_object(text: str, *, source: Path, record: int | None) -> dict[str, Any]:
    """Read one JSON object, or say where there is none."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TrainingDataError(
            f"It is not JSON ({error}).", source=source, record=record
        ) from error
    if not isinstance(value, dict):
        raise TrainingDataError(
            f"It holds a {type(value).__name__} where an object is wanted.",
            source=source,
            record=record,
        )
    return value


def check_text(value: object, fail: Callable[[str], TrainingDataError]) -> str:
    """Check that a value is a text that can be stored and read.

    Args:
        value: The value.
        fail: Makes the error of a problem.

    Returns:
        The text.

    Raises:
        TrainingDataError: It is no text, empty, far too long or no valid Unicode.
    """
    if not isinstance(value, str) or not value.strip():
        raise fail(f"It is {value!r:.80}; it must be a text that is not empty.")
    if len(value) > MOST_CHARS:
        raise fail(
            f"It has {len(value)} characters and at most {MOST_CHARS} are read. Split it, or "
            "leave the record out."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise fail(
            f"Its character {error.start + 1} is half of a surrogate pair and no valid Unicode. "
            "Write the file again with a correct encoding."
        ) from error
    return value
