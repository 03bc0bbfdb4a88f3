from __future__ import annotations

import datetime
import decimal

import pytest

from phi3_industry.ingestion.cells import cell_value, column_format, typed_cell, unit_of, value_text


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("38.2", 38.2),
        ("0", 0),
        ("007", "007"),
        ("1,000", "1,000"),
        ("1e5", "1e5"),
        ("nan", "nan"),
        ("38.2 bar", "38.2 bar"),
        ("１２", "１２"),
        ("9" * 20, "9" * 20),
    ],
)
def test_cell_is_a_number_only_where_it_plainly_is_one(cell: str, value: object) -> None:
    assert cell_value(cell) == value
    assert type(cell_value(cell)) is type(value)


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        (["1,234.5", "12"], "."),
        (["1.234,5", "12"], ","),
        (["1,234,567", "890"], "."),
        (["12,5 bar", "3,25 bar"], ","),
        (["38.2 bar", "40 bar"], "."),
        (["$ 1,452.4", "(116)"], "."),
        (["12 %", "n/a", "7 %"], "."),
        (["1,000", "2,000"], ""),  # thousands, or three decimals
        (["1,5", "2.5"], ""),  # the marks contradict each other
        (["12", "38.2"], ""),  # plain numbers need no reading
        (["P-1", "P-2"], ""),
        (["2019", "2018 estimated"], ""),
        ([], ""),
    ],
)
def test_mark_of_decimals_is_seen_from_the_whole_column(cells: list[str], mark: str) -> None:
    assert column_format(cells) == mark


@pytest.mark.parametrize(
    ("cell", "mark", "typed"),
    [
        ("38.2 bar", ".", {"number": 38.2, "unit": "bar"}),
        ("(1,234.5)", ".", {"number": -1234.5}),
        ("−4 °C", ".", {"number": -4.0, "unit": "°C"}),
        ("€1.234,5", ",", {"number": 1234.5}),
        ("12 345,6", ",", {"number": 12345.6}),
        ("23%", ".", {"number": 23.0, "unit": "%"}),
        ("1.2.3", ".", {}),
        ("n/a", ".", {}),
    ],
)
def test_amount_is_read_with_its_unit(cell: str, mark: str, typed: dict[str, object]) -> None:
    assert typed_cell(cell, mark) == typed


@pytest.mark.parametrize(
    ("cells", "dates"),
    [
        (["30/9/2019", "1/2/2020"], ["2019-09-30", "2020-02-01"]),
        (["9/30/2019", "1/2/2020"], ["2019-09-30", "2020-01-02"]),
        (["1.5.2024", "2.5.2024"], ["2024-05-01", "2024-05-02"]),
        (["2024/5/1"], ["2024-05-01"]),
        (["1/2/2020", "3/4/2020"], [None, None]),  # nobody can tell
        (["31/4/2019", "30/4/2019"], [None, "2019-04-30"]),
        (["2024-05-01"], [None]),  # it is in ISO form already
    ],
)
def test_dates_are_read_where_the_column_tells_the_day(
    cells: list[str], dates: list[str | None]
) -> None:
    chosen = column_format(cells)
    assert [typed_cell(cell, chosen).get("date") for cell in cells] == dates


@pytest.mark.parametrize(
    ("column", "unit"),
    [("Load (t)", "t"), ("Pressure [bar]", "bar"), ("Load", ""), ("(in millions)", "")],
)
def test_unit_is_what_a_name_ends_with_in_brackets(column: str, unit: str) -> None:
    assert unit_of(column) == unit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "TRUE"),
        (38.2, "38.2"),
        (decimal.Decimal("38.20"), "38.20"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        (datetime.datetime(2024, 5, 1), "2024-05-01"),
        (datetime.datetime(2024, 5, 1, 8, 30), "2024-05-01 08:30:00"),
        (datetime.time(9), "09:00:00"),
    ],
)
def test_typed_value_is_written_as_a_cell(value: object, text: str) -> None:
    assert value_text(value) == text
