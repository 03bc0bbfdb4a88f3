from __future__ import annotations

import pytest

from phi3_industry.ingestion.layout import build_table, property_lines
from phi3_industry.ingestion.tables import (
    key_column_of,
    row_text,
    row_texts,
    unique_columns,
)


def words(text: str) -> int:
    return len(text.split())


def test_row_begins_with_its_key_and_leaves_empty_cells_out() -> None:
    text = row_text(["Kind", "Tag", "Oil", "Load"], ["pump", "P-4471", "", "38.2 bar"], 1)
    assert text == "Tag: P-4471; Kind: pump; Load: 38.2 bar"


def test_row_without_key_is_written_without_it() -> None:
    assert row_text(["Tag", "Load"], ["", "3 t"], 0) == "Load: 3 t"


def test_columns_are_named_by_place_or_numbered_when_repeated() -> None:
    names = unique_columns(["Load", "", " Load ", "Load (2)", "Load"])
    assert names == ("Load", "Column 2", "Load (2)", "Load (2) (2)", "Load (3)")
    assert len(set(names)) == 5


def test_thousands_of_equal_columns_are_told_apart_quickly() -> None:
    assert len(set(unique_columns(["x"] * 5000))) == 5000


def test_key_is_the_first_distinct_column_that_is_no_number() -> None:
    rows = [("1", "pump", "P-1"), ("2", "pump", "P-2")]
    assert key_column_of(rows, 3) == 2


def test_key_is_a_column_of_numbers_where_no_other_is_distinct() -> None:
    rows = [("1,000", "Infinite"), ("250", "N/A"), ("500", "N/A")]
    assert key_column_of(rows, 2) == 0


def test_key_is_no_description_while_a_name_is_there() -> None:
    rows = [("1", "a" * 200, "P-1"), ("2", "b" * 200, "P-2")]
    assert key_column_of(rows, 3) == 2


def test_key_falls_back_to_the_first_column() -> None:
    assert key_column_of([("a", "x"), ("a", "x")], 2) == 0


def test_header_is_told_from_rows() -> None:
    table = build_table([["Tag", "2nd stage", "Load"], ["P-1", "3 bar", "2 t"]])
    assert table is not None
    assert table.columns == ("Tag", "2nd stage", "Load")
    assert table.rows == (("P-1", "3 bar", "2 t"),)


def test_years_name_columns() -> None:
    table = build_table([["", "2019", "2018"], ["Revenue", "12", "10"]])
    assert table is not None
    assert table.columns == ("Column 1", "2019", "2018")


@pytest.mark.parametrize("day", ["30/9/2019", "2019-09-30", "30.9.19", "30 September 2019", "2019"])
def test_dates_name_columns(day: str) -> None:
    table = build_table([["€ million", day], ["Assets", "6,348"], ["Debts", "12"]])
    assert table is not None
    assert table.columns == ("€ million", day)


def test_table_without_header_keeps_its_first_row() -> None:
    table = build_table([["P-1", "3 bar", "2 t"], ["P-2", "4 bar", "1 t"]])
    assert table is not None
    assert table.columns == ("Column 1", "Column 2", "Column 3")
    assert len(table.rows) == 2


def test_caption_row_becomes_the_name() -> None:
    table = build_table([["Equipment list", ""], ["Tag", "Load"], ["P-1", "2 t"]])
    assert table is not None
    assert (table.name, table.columns) == ("Equipment list", ("Tag", "Load"))


def test_ragged_rows_are_filled_and_empty_rows_and_columns_dropped() -> None:
    table = build_table([["Tag", "", "Load"], [], ["P-1", None, 3], ["P-2", ""]])
    assert table is not None
    assert table.columns == ("Tag", "Load")
    assert table.rows == (("P-1", "3"), ("P-2", ""))


def test_table_without_rows_is_none() -> None:
    assert build_table([["", ""], []]) is None
    assert build_table([["Tag", "Load"]], header=True) is None


def test_table_of_properties_becomes_lines() -> None:
    rows = [["Oil temperature", "65 °C"], ["Net weight", "40 kg"], ["Remark", ""]]
    assert property_lines(rows) == ["Oil temperature: 65 °C", "Net weight: 40 kg", "Remark"]
    assert property_lines([["Setting", "Meaning"], ["a", "b"]]) is None
    assert property_lines([["a", "1", "2"]]) is None


def test_long_row_is_split_and_each_part_repeats_the_key() -> None:
    columns = ["Tag", "Note", "Load"]
    cells = ["P-1", " ".join(f"w{i}" for i in range(40)), "2 t"]
    parts = row_texts(columns, cells, 0, max_tokens=16, count_tokens=words)
    assert len(parts) > 2
    assert all(part.startswith("Tag: P-1; ") for part in parts)
    assert all(words(part) <= 16 for part in parts)
    assert [w for p in parts for w in p.split() if w.startswith("w")] == cells[1].split()
    assert sum("Load: 2 t" in part for part in parts) == 1


def test_short_row_is_one_text() -> None:
    parts = row_texts(["Tag", "Load"], ["P-1", "2 t"], 0, max_tokens=16, count_tokens=words)
    assert parts == ["Tag: P-1; Load: 2 t"]


def test_row_that_is_all_key_is_kept() -> None:
    cells = [" ".join("k" * 1 for _ in range(50)), ""]
    parts = row_texts(["Tag", "Load"], cells, 0, max_tokens=10, count_tokens=words)
    assert parts
    assert all(words(part) <= 10 for part in parts)
