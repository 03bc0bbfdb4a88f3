from __future__ import annotations

import pytest

from phi3_industry.ingestion.layout import build_table
from phi3_industry.ingestion.tables import Table, row_text


def built(rows: list[list[str]], **settings: bool) -> Table:
    table = build_table(rows, **settings)
    assert table is not None
    return table


def sentences(table: Table) -> list[str]:
    return [row_text(table.columns, row, table.key_column) for row in table.rows]


# header lines


def test_line_of_units_belongs_to_the_header() -> None:
    table = built(
        [["", "2019", "2018"], ["", "£m", "£m"], ["Sales", "5.1", "4"], ["Costs", "2", "1"]]
    )
    assert table.columns == ("Column 1", "2019 £m", "2018 £m")
    assert sentences(table)[0] == "Column 1: Sales; 2019 £m: 5.1; 2018 £m: 4"


def test_cell_above_several_columns_is_part_of_each_name() -> None:
    rows = [
        ["", "Net sales", "", "Share", ""],
        ["Region", "2019", "2018", "2019", "2018"],
        ["APAC", "533", "479", "38.6%", "40.0%"],
        ["EMEA", "315", "277", "22.8%", "23.1%"],
    ]
    assert built(rows).columns == (
        "Region", "Net sales 2019", "Net sales 2018", "Share 2019", "Share 2018",
    )  # fmt: skip


def test_centred_cell_names_the_years_below_it_and_nothing_else() -> None:
    rows = [
        ["", "", "", "December 31", ""],
        ["", "Life (years)", "2019", "2018", "Note"],
        ["Computers", "3", "14,689", "14,058", "7"],
        ["Furniture", "5", "2,766", "3,732", "8"],
    ]
    assert built(rows).columns == (
        "Column 1", "Life (years)", "December 31 2019", "December 31 2018", "Note",
    )  # fmt: skip


def test_cell_that_may_belong_to_any_column_is_said_of_the_table() -> None:
    rows = [
        ["", "", "", "Issue price"],
        ["Details", "Date", "Shares", "Price"],
        ["Balance", "1 July 2017", "130,215", "8.52"],
        ["Issued", "23 May 2018", "69,129", "8.46"],
    ]
    table = built(rows)
    assert (table.name, table.columns[1]) == ("Issue price", "Date")


def test_cells_merged_over_two_header_lines_are_named_once() -> None:
    rows = [["Tag", "Size", "Size"], ["Tag", "L", "W"], ["P-1", "3", "4"], ["P-2", "5", "6"]]
    table = built(rows, spans_are_filled=True)
    assert table.columns == ("Tag", "Size L", "Size W")


@pytest.mark.parametrize(
    "rows",
    [
        # texts below a header whose first cell is empty
        [["", "CNN", "ETS"], ["Cost", "High", "Low"], ["History", "Yes", "No"]],
        # years in the first row, among years
        [["", "Founded", "Closed"], ["ACME", "1999", "2005"], ["Duff", "1980", "1990"]],
        # a first row without numbers, which has a name
        [["Tag", "Load", "Oil"], ["P-1", "none", "none"], ["P-2", "3", "4"], ["P-3", "5", "6"]],
        # a first row without a name, with numbers
        [["", "Load", "Oil"], ["", "3", "4"], ["P-2", "5", "6"]],
    ],
)
def test_row_that_may_be_a_record_is_one(rows: list[list[str]]) -> None:
    assert len(built(rows).rows) == len(rows) - 1


# groups


def test_line_that_ends_with_a_colon_groups_the_rows_below_it() -> None:
    rows = [
        ["Item", "2019", "2018"],
        ["Sales:", "", ""],
        ["Pumps", "5", "4"],
        ["Costs:", "", ""],
        ["Fixed:", "", ""],
        ["Pumps", "2", "1"],
    ]
    table = built(rows)
    assert table.groups == (("Sales",), ("Costs", "Fixed"))
    assert sentences(table)[1] == "Item: Pumps; 2019: 2; 2018: 1"


def test_line_across_a_table_groups_the_rows_below_it() -> None:
    rows = [["Class", "A", "B"], ["db.m5 – latest classes"], ["db.m5.large", "64", "16"]]
    table = built(rows)
    assert (table.groups, table.rows) == (
        (("db.m5 – latest classes",),),
        (("db.m5.large", "64", "16"),),
    )


def test_line_items_without_numbers_group_the_rows_below_them() -> None:
    rows = [
        ["(in thousands)", "2019", "2018"],
        ["Deferred tax assets", "", ""],
        ["Inventory", "$7,144", "$6,609"],
        ["Investments", "—", "1,122"],
    ]
    assert built(rows).groups == (("Deferred tax assets",), ("Deferred tax assets",))


@pytest.mark.parametrize(
    "rows",
    [
        # a record of which nothing is known
        [["Tag", "Load", "Oil"], ["P-1", "3", "4"], ["P-7", "", ""], ["P-8", "5", "6"]],
        [["Tag", "Load", "Oil"], ["P-7"], ["P-8", "5", "6"]],
        [["Station", "Load", "Oil"], ["Boiler house", "", ""], ["Mill", "5", "6"]],
        # nothing below it
        [["", "2019", "2018"], ["Sales", "3", "4"], ["Remarks:", "", ""]],
        # a table of two columns, one of them text
        [["Setting", "Meaning"], ["mode", ""], ["speed", "how fast"]],
    ],
)
def test_record_with_nothing_but_its_name_groups_nothing(rows: list[list[str]]) -> None:
    table = built(rows)
    assert table.groups == ()
    assert len(table.rows) == len(rows) - 1


# footnotes


def test_footnote_stands_with_the_rows_that_refer_to_it() -> None:
    rows = [
        ["Tag", "Load", "Oil"],
        ["P-1 (1)", "3", "4"],
        ["P-2", "5", "6†"],
        ["(1) Out of service.", "", ""],
        ["† Estimated.", "", ""],
    ]
    table = built(rows)
    assert len(table.rows) == 2
    assert table.notes_of(0) == (("(1)", "Out of service."),)
    assert table.notes_of(1) == (("†", "Estimated."),)


def test_last_row_that_nothing_refers_to_is_a_row() -> None:
    rows = [["Tag", "Load"], ["P-1", "(1)"], ["(1) is bracketed", ""]]
    table = built(rows)
    assert (len(table.rows), table.notes) == (2, ())
