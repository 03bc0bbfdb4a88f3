"""Which cells the benchmark on real tables may ask about."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from llama_index.core.schema import TextNode

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "real_table_cells.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_table_cells", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["real_table_cells"] = module
    spec.loader.exec_module(module)
    return module


def asked(script: ModuleType, folder: Path, **tables: str) -> set[tuple[str, str]]:
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    cells = script.possible_cells(sorted(folder.glob("*.csv")), folder=folder)
    return {(cell.question, cell.value) for cell in cells}


def test_every_plain_cell_can_be_asked_about(script: ModuleType, tmp_path: Path) -> None:
    assert asked(script, tmp_path, pumps=",Pressure,Oil\nP-1,38 bar,VG 46\nP-2,12 bar,VG 68\n") == {
        ("What is the Pressure of P-1?", "38 bar"),
        ("What is the Oil of P-1?", "VG 46"),
        ("What is the Pressure of P-2?", "12 bar"),
        ("What is the Oil of P-2?", "VG 68"),
    }


@pytest.mark.parametrize(
    "table",
    [
        "Tag,Oil\nP-1,\n",  # an empty cell
        "Tag,Oil\n,VG 46\n",  # a row without a name
        "Tag,Oil\nP-1,VG 46\nP-1,VG 46\n",  # a name that stands twice
        "Tag,Oil,\nP-1,VG 46,x\n",  # a column without a name
        "Tag,Oil,oil\nP-1,VG 46,x\n",  # two columns of one name
        "Tag,Oil\nP-1,one two three four five six seven eight nine ten eleven twelve thirteen\n",
        "Tag,Oil\nP-1,![no](image.png)\n",
        "Tag,Oil\n",
        "",
    ],
)
def test_what_a_person_could_not_ask_about_is_left_out(
    script: ModuleType, tmp_path: Path, table: str
) -> None:
    assert asked(script, tmp_path, table=table) == set()


def test_a_question_with_two_answers_is_left_out(script: ModuleType, tmp_path: Path) -> None:
    found = asked(
        script,
        tmp_path,
        one="Tag,Oil,Weight\nP-1,VG 46,12 kg\n",
        # cannot be asked about itself, since a column has no name, but contradicts all the same
        two="Tag,Oil,Weight,\nP-1,VG 68,12 kg,x\n",
    )
    assert found == {("What is the Weight of P-1?", "12 kg")}


def test_cells_are_drawn_by_seed_and_no_question_twice(script: ModuleType) -> None:
    cells = [script.Cell(f"{n % 2}.csv", f"P-{n // 2}", "Oil", "VG 46") for n in range(20)]
    first = script.draw(cells, count=5, seed=1)
    assert first == script.draw(cells, count=5, seed=1) != script.draw(cells, count=5, seed=2)
    assert len({cell.question for cell in script.draw(cells, count=50, seed=0)}) == 10


def test_gold_is_the_passage_with_this_cell_of_this_row(script: ModuleType) -> None:
    cell = script.Cell("pumps.csv", "P-1", "Oil", "VG 46")
    nodes = [
        TextNode(id_="right", text="Tag: P-1; Pressure: 3 bar; Oil: VG 46"),
        TextNode(id_="row", text="Tag: P-2; Oil: VG 46"),
        TextNode(id_="longer", text="Tag: P-1; Oil: VG 460"),
        TextNode(id_="name", text="Tag: P-12; Oil: VG 46"),
    ]
    assert script.to_questions([cell], nodes)[0].gold_ids == ("right",)
    assert script.to_questions([cell], nodes[1:])[0].gold_ids == ("pumps.csv#P-1",)
