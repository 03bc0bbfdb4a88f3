from __future__ import annotations

import pytest

from phi3_industry.ingestion.grid import build_tables

PUMPS = [["Tag", "Load", "Oil"], ["P-1", "3", "4"], ["P-2", "5", "6"]]
VALVES = [["Valve", "Size"], ["V-1", "DN 50"], ["V-2", "DN 80"]]


def test_two_tables_below_each_other_are_two() -> None:
    tables = build_tables([*PUMPS, [], ["Valve list"], *VALVES], name="Plant")
    assert [table.columns for table in tables] == [("Tag", "Load", "Oil"), ("Valve", "Size")]
    assert [table.name for table in tables] == ["Plant", "Plant: Valve list"]


def test_second_header_over_numbers_begins_a_table() -> None:
    second = [["Tag", "Speed", "Power"], ["P-1", "1500", "30"], ["P-2", "3000", "11"]]
    assert [len(table.rows) for table in build_tables([*PUMPS, [], *second])] == [2, 2]


@pytest.mark.parametrize(
    "rows",
    [
        [*PUMPS, [], ["P-3", "7", "8"], ["P-4", "9", "1"]],
        [["A", "B"], ["x", "y"], [], ["z", "w"], ["u", "v"]],
        [["Tag", "Load", "Oil"], ["P-1", "3", "4"], [], ["P-2", "5", ""], ["P-3", "6", ""]],
    ],
)
def test_empty_row_within_a_table_parts_nothing(rows: list[list[str]]) -> None:
    [table] = build_tables(rows)
    assert len(table.rows) == sum(map(bool, rows)) - 1


def test_tables_beside_each_other_are_two_where_they_differ_in_height() -> None:
    right = [*VALVES, ["", ""], ["", ""]]
    left = [*PUMPS, ["P-3", "7", "8"], ["P-4", "9", "1"]]
    rows = [[*a, "", *b] for a, b in zip(left, right, strict=True)]
    tables = build_tables(rows, side_by_side=True)
    assert [len(table.rows) for table in tables] == [4, 2]
    assert len(build_tables(rows)) == 1


def test_empty_column_within_a_table_parts_nothing() -> None:
    rows = [
        ["Tag", "Load", "", "Oil", "Flow"],
        ["P-1", "3", "", "4", "5"],
        ["P-2", "5", "", "", "6"],
    ]
    [table] = build_tables(rows, side_by_side=True)
    assert table.columns == ("Tag", "Load", "Oil", "Flow")


def test_header_that_comes_back_is_left_out() -> None:
    [table] = build_tables([*PUMPS, PUMPS[0], ["P-3", "7", "8"]])
    assert [row[0] for row in table.rows] == ["P-1", "P-2", "P-3"]


def test_header_that_comes_back_below_another_caption_begins_a_table() -> None:
    block = [
        ["", "Cost", "Gains", "Value"],
        ["Bonds", "129", "3", "126"],
        ["Shares", "99", "1", "96"],
    ]
    first, second = ["", "", "As of 2019", ""], ["", "", "As of 2018", ""]
    tables = build_tables([first, *block, second, *block])
    assert [table.name for table in tables] == ["As of 2019", "As of 2018"]
    assert [len(table.rows) for table in tables] == [2, 2]


def test_columns_that_come_back_below_a_name_begin_a_table() -> None:
    rows = [
        ["", "2019", "2018"],
        ["", "$m", "$m"],
        ["Capital", "83", "66"],
        ["Number of shares", "2019", "2018"],
        ["At the end", "559", "512"],
    ]
    tables = build_tables(rows)
    assert [table.columns for table in tables] == [
        ("Column 1", "2019 $m", "2018 $m"),
        ("Number of shares", "2019", "2018"),
    ]
