from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_room_is_in_the_architecture_page() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "src" / "phi3_industry"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py"}
    rooms |= {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").is_file()}
    rooms -= {"__init__", "__main__"}
    assert len(rooms) > 10
    for room in rooms:
        assert f"`{room}`" in page, room
