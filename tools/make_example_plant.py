"""Write ``examples/plant``: an invented plant, its papers and questions about them.

Everything comes from one seed, so a second run writes the same bytes::

    python tools/make_example_plant.py            # into examples/plant
    python tools/make_example_plant.py FOLDER
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from plant_devices import ATTRIBUTES, Device, invent_devices
from plant_documents import write_papers
from plant_questions import Record, ask_held_out, ask_training

__all__ = ["make_plant", "write_plant"]

SEED = 20250214
TRAINING_AGAIN = 130
TRAINING_UNANSWERABLE = 110
HELD_OUT_ANSWERABLE = 120
HELD_OUT_UNANSWERABLE = 30


def make_plant(seed: int = SEED) -> dict[str, bytes]:
    """Make every file of the example: relative path to content."""
    rng = random.Random(seed)
    devices = invent_devices(rng)
    papers = write_papers(devices, rng)
    training = ask_training(
        devices, papers.places, rng, again=TRAINING_AGAIN, unanswerable=TRAINING_UNANSWERABLE
    )
    held_out = ask_held_out(
        devices,
        papers.places,
        rng,
        answerable=HELD_OUT_ANSWERABLE,
        unanswerable=HELD_OUT_UNANSWERABLE,
    )
    files = {f"documents/{path}": content for path, content in papers.files.items()}
    files["questions.train.jsonl"] = _json_lines(training)
    files["questions.dev.jsonl"] = _json_lines(held_out)
    files["README.md"] = _readme(devices, papers.files, training, held_out).encode()
    return files


def write_plant(folder: Path) -> None:
    """Write the example into a folder, over what is there."""
    for path, content in make_plant().items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _json_lines(records: Sequence[Record]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def _readme(
    devices: Sequence[Device],
    papers: Mapping[str, bytes],
    training: Sequence[Record],
    held_out: Sequence[Record],
) -> str:
    codes = "\n".join(f"| {a.name} | {a.unit} | `{a.code}` |" for a in ATTRIBUTES.values())
    facts = sum(len(device.values) for device in devices)
    aside = sum(device.held_out for device in devices)

    def count(records: Sequence[Record]) -> str:
        answerable = sum(bool(record["answers"]) for record in records)
        return f"{answerable} | {len(records) - answerable}"

    return f"""# The Norrvik bottling and steam plant

This plant does not exist. Its devices, values, papers and questions are invented by the
developers of phi3-industry and written by `tools/make_example_plant.py` from one seed: a second
run writes the same bytes. They are under the project's own licence.

`documents/` holds {len(papers)} files in Markdown, Word, HTML, text, PDF, CSV and Excel about
{len(devices)} devices with {facts} facts. Each fact is stated in exactly one passage. Many tags
are one digit apart from another one.

| file | answerable | unanswerable |
| --- | --- | --- |
| `questions.train.jsonl` | {count(training)} |
| `questions.dev.jsonl` | {count(held_out)} |

- {aside} devices are held out: no training question names them or has a passage about them as
  its source. The answerable questions of `dev` ask about nothing else, in wordings that `train`
  does not have.
- An unanswerable question asks for a device that is not there, one digit apart from one that is,
  or for something that the papers do not give for the device. Its `answers` are empty.
- `gold_ids` name the passage that states the fact, as `path#section` or `path#row key`.

## The house format

`reference` is the answer as the plant's staff write it: the value, ` | `, and the house code of
what was measured, such as `38.2 bar | PDIS`. The codes stand in no document, so retrieval cannot
find them: an adapter learns them from the training questions. The values of held-out devices
stand only in the documents, so an adapter cannot know them: they must be retrieved.

| measured | unit | house code |
| --- | --- | --- |
{codes}
"""


if __name__ == "__main__":
    default = Path(__file__).resolve().parent.parent / "examples" / "plant"
    target_folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    write_plant(target_folder)
    print(f"Wrote {target_folder}")
