"""What a table's cells are: numbers, dates, units, or words."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "cell_value",
    "column_format",
    "is_date",
    "is_number_like",
    "is_quantity",
    "typed_cell",
    "unit_of",
    "value_text",
]

_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?")
_NUMBER_LIKE = re.compile(r"[-+−]?[$€£¥]?\s?\d[\d.,'’\s]*%?")
_QUANTITY = re.compile(r"[-+−±<>≤≥]?\s?\d")
_MONEY = re.compile(r"[-+−]?\s?\(?\s?[A-Z]{0,3}\s?[$€£¥]\s?\(?[-+−]?\s?[\d.—–-]")
_BRACKETED = re.compile(r"\(\s?[$€£¥]?\s?\d")
_BLANK = re.compile(r"[-–—‐−\s]+|n/?a\.?", re.IGNORECASE)
"""How tables write that there is no value."""
_DATE = re.compile(
    r"(?:19|20)\d\d|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}\.? [^\W\d]+\.? (?:19|20)\d\d"
)
"""A year, ``30/9/2019``, ``2019-09-30`` or ``30 September 2019``."""
_DAY = re.compile(r"(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})")
_AMOUNT = re.compile(
    r"(\(?)\s?([-+−]?)\s?(?:[A-Z]{0,3}[$€£¥])?\s?([-−]?\d[\d.,'’\u00a0\u202f ]*)\)?\s?"
    r"([^\W\d]\S{0,15}|[%‰°]\S{0,4})?"
)
"""Bracket or sign, digits with their marks, and a unit."""

_UNIT = re.compile(r".*\S\s*[\[(]([^\[\]()]{1,16})[\])]")


def cell_value(cell: str) -> int | float | str:
    """Read a cell as a number where it plainly is one, for filters.

    ``"1,000"`` stays text, since the comma parts thousands in some countries and decimals in
    others, and so does ``"007"``, which is a code.
    """
    if not _PLAIN_NUMBER.fullmatch(cell):
        return cell
    return float(cell) if "." in cell else int(cell)


def value_text(value: object) -> str:
    """Write a typed value as a cell: dates in ISO form, truth as Excel shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time() and value.tzinfo is None
        return value.date().isoformat() if midnight else value.isoformat(sep=" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def is_date(cell: str) -> bool:
    """Whether a cell is a year or a date in digits."""
    return _DATE.fullmatch(cell) is not None


def is_number_like(cell: str) -> bool:
    """Whether a cell is a number in any way of writing, with a currency or a percent sign."""
    return _NUMBER_LIKE.fullmatch(cell) is not None


def is_quantity(cell: str, *, or_blank: bool = False) -> bool:
    """Whether a cell begins as a quantity does and is no date, which often names a column.

    Args:
        cell: The cell.
        or_blank: Whether money, bracketed numbers and signs for "no value" count as well.
    """
    if is_date(cell):
        return False
    if _QUANTITY.match(cell):
        return True
    found = _MONEY.match(cell) or _BRACKETED.match(cell) or _BLANK.fullmatch(cell)
    return or_blank and found is not None


def unit_of(column: str) -> str:
    """Find the unit that a column's name ends with in brackets, ``Load (t)``; or nothing."""
    match = _UNIT.fullmatch(column)
    return match.group(1).strip() if match else ""


def column_format(cells: Iterable[str]) -> str:
    """See how a column writes amounts or dates, where the whole column leaves no doubt.

    Returns:
        ``"."`` or ``","``, the mark of decimals in amounts such as ``"1,234.5 bar"``; the order of
        year, month and day such as ``"dmy"``; or nothing, also for a column of plain numbers or
        ISO dates, which need no reading.
    """
    filled = [cell for cell in cells if cell and not _BLANK.fullmatch(cell)]
    if not filled or all(map(_PLAIN_NUMBER.fullmatch, filled)):
        return ""
    days = [_DAY.fullmatch(cell) for cell in filled]
    if all(days):
        return _date_order([match.group(1, 2, 3, 4) for match in days if match])
    amounts = [_AMOUNT.fullmatch(cell) for cell in filled]
    if not all(amounts) or any(map(is_date, filled)):
        return ""
    return _decimal_mark([_digits(match) for match in amounts if match])


def typed_cell(cell: str, column_format: str) -> dict[str, float | str]:
    """Read a cell by its column's format.

    Returns:
        ``{"number": 38.2, "unit": "bar"}``, without a unit where there is none, or
        ``{"date": "2024-05-01"}``; nothing if the cell is written otherwise.
    """
    if len(column_format) == 3:
        match = _DAY.fullmatch(cell)
        day = _iso_date(match.group(1, 3, 4), column_format) if match else ""
        return {"date": day} if day else {}
    match = _AMOUNT.fullmatch(cell) if column_format else None
    if match is None:
        return {}
    bracket, sign, _, unit = match.groups()
    digits = _digits(match)
    other = "." if column_format == "," else ","
    try:
        size = float(digits.replace(other, "").replace(column_format, "."))
    except ValueError:  # marks in places where no number has them
        return {}
    negative = bracket or sign in ("-", "−") or match.group(3)[0] in "-−"
    return {"number": -size if negative else size, **({"unit": unit} if unit else {})}


def _digits(match: re.Match[str]) -> str:
    return re.sub(r"[-−'’\s]", "", match.group(3)).rstrip(".,")


def _decimal_mark(numbers: Sequence[str]) -> str:
    """See from a column which mark parts decimals; nothing where it cannot be seen."""
    votes: set[str] = set()
    doubtful = False
    for number in numbers:
        marks = [character for character in number if character in ".,"]
        if not marks:
            continue
        last = marks[-1]
        if len(set(marks)) == 2:
            votes.add(last)
        elif len(marks) > 1:
            votes.add("." if last == "," else ",")  # a mark that comes again parts thousands
        elif len(number) - number.rindex(last) != 4 or number.startswith("0"):
            votes.add(last)
        else:
            doubtful = True
    if len(votes) == 1:
        return votes.pop()
    return "" if votes or doubtful else "."


def _date_order(parts: Sequence[tuple[str | Any, ...]]) -> str:
    """See from a column which number is the day: dots tell, and so does a number above 12."""
    if all(len(first) == 4 for first, *_ in parts):
        return "" if all(mark == "-" for _, mark, *_ in parts) else "ymd"
    if not all(len(last) == 4 and len(first) <= 2 for first, _, _, last in parts):
        return ""
    dots = all(mark == "." for _, mark, *_ in parts)
    day_first = dots or any(int(first) > 12 for first, *_ in parts)
    month_first = any(int(second) > 12 for _, _, second, _ in parts)
    if day_first == month_first:
        return ""
    return "dmy" if day_first else "mdy"


def _iso_date(parts: tuple[str | Any, ...], order: str) -> str:
    year, month, day = (int(parts[order.index(name)]) for name in "ymd")
    try:
        return datetime.date(year, month, day).isoformat()
    except ValueError:
        return ""
