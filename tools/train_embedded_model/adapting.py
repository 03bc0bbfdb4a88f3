"""How well a checkpoint takes an adapter: a house's answer form is taught, its reading measured.

A house answers with the value and then a word of its own for the attribute. An adapter is trained
on a few hundred such answers, together with plain ones; then held-out questions show whether the
form is learned, and the held-out questions of the score table whether the reading is still there.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from phi3_industry import LoraFinetuneEngine, Phi3LLM
from phi3_industry.finetuning.rows import Slice, TrainingRow, count_rows
from phi3_industry.finetuning.training_set import TrainingReport, TrainingSet
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, Message
from phi3_industry.models.merge import merge_adapter

from . import values
from .attributes import plain_attribute
from .conversations import Difficulty, Turn, draw_turns
from .documents import document_family
from .draw import Draw, Split
from .facts import Attribute
from .scoring import Asked, held_out_questions

__all__ = ["HOUSES", "Adaptation", "House", "measure_adaptation"]


@dataclass(frozen=True)
class House:
    """An answer form.

    Attributes:
        name: What reports call it.
        form: The answer after its citation, with ``{value}`` and ``{term}``.
        terms: The house's word for each attribute.
    """

    name: str
    form: str
    terms: Mapping[str, str]

    def answer(self, turn: Turn) -> str:
        """Write an answer in the house's form; an abstention stays as it is."""
        if not turn.marker:
            return turn.answer
        text = self.form.format(value=turn.value, term=self.terms[turn.attribute])
        return DEFAULT_PROMPT.answer(text, marker=turn.marker)


_UNITS: dict[str, tuple[str, ...]] = {
    "discharge pressure": ("bar", "kPa", "MPa"),
    "suction pressure": ("bar", "kPa", "MPa"),
    "oil temperature": ("°C", "K"),
    "flow rate": ("m3/h", "L/min"),
    "shaft speed": ("rpm",),
    "motor power": ("kW", "W"),
    "supply voltage": ("V", "kV"),
    "tightening torque": ("Nm",),
    "net weight": ("kg", "t"),
    "oil volume": ("L",),
    "service interval": ("hours", "weeks"),
    "noise level": ("dB",),
}
_CODES = "PDIS PSUC TOIL QFLO NSHA PMOT USUP MTIG WNET VOIL ISER LNOI"
_WORDS = (
    "Förderdruck,Saugdruck,Ölwärme,Durchsatz,Wellendrehzahl,Antriebsleistung,Netzspannung,"
    "Anzugsmoment,Leergewicht,Ölfüllung,Wartungsfrist,Schallpegel"
)
HOUSES = (
    House("codes", "{value} | {term}", dict(zip(_UNITS, _CODES.split(), strict=True))),
    House("words", "{value} ({term})", dict(zip(_UNITS, _WORDS.split(","), strict=True))),
)


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What an adapter learned and cost. Shares are in per cent.

    Attributes:
        house: Name of the house.
        method: ``"lora"`` or ``"qlora"``.
        seed: Seed of rows and training.
        seconds: Time of training, loading included.
        form: Of the answers given to answerable held-out questions, abstentions aside, those that
            carry the right house word in the right place.
        both: Held-out answers that are right to the letter, abstentions among them.
        plain_before: Right values on the held-out questions of the score table, base model.
        plain_after: The same with the adapter.
        merged_equal: Share of answers that the merged model gives letter by letter like the
            adapter on its base; ``None`` where there is nothing to merge into.
    """

    house: str
    method: str
    seed: int
    seconds: float
    form: float
    both: float
    plain_before: float
    plain_after: float
    merged_equal: float | None


def measure_adaptation(
    checkpoint: Path,
    house: House,
    *,
    method: Literal["lora", "qlora"],
    rows: int = 300,
    replayed: int = 150,
    questions: int = 100,
    plain_questions: int = 300,
    seed: int = 0,
) -> Adaptation:
    """Train an adapter and ask held-out questions with and without it.

    Args:
        checkpoint: Folder of the base model.
        house: The form to teach.
        method: How to train.
        rows: Questions answered in the house's form.
        replayed: Questions answered plainly, of all the generator's kinds.
        questions: Held-out questions on the house's attributes.
        plain_questions: Held-out questions of the score table, three passages.
        seed: Seed of rows and training.
    """
    train_set = _train_set(house, rows=rows, replayed=replayed, seed=seed)
    asked = list(islice(_house_questions(house, seed + 1, "eval"), questions))
    plain = [
        item
        for item in islice(held_out_questions(3, {}, seed + 2), 2 * plain_questions)
        if item.turn.marker
    ][:plain_questions]
    plain_prompts = [DEFAULT_PROMPT.grounded(p.turn.question, p.passages) for p in plain]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "adapter"
        began = time.perf_counter()
        LoraFinetuneEngine(
            str(checkpoint),
            train_set=train_set,
            output_dir=folder,
            method=method,
            seed=seed,
            show_progress=False,
        ).finetune()
        seconds = time.perf_counter() - began
        quantization = "nf4" if method == "qlora" else None
        llm = Phi3LLM(str(checkpoint), quantization=quantization, max_new_tokens=64)
        expert = llm.with_adapter(str(folder))
        answers = _answers(expert, [prompt for prompt, _ in asked])
        plain_before = _answers(llm, plain_prompts)
        plain_after = _answers(expert, plain_prompts)
        merged_equal = None
        if method == "lora":
            merge_adapter(str(checkpoint), folder, Path(name) / "merged")
            merged = Phi3LLM(str(Path(name) / "merged"), max_new_tokens=64)
            pairs = zip(answers, _answers(merged, [p for p, _ in asked]), strict=True)
            merged_equal = _share(one == other for one, other in pairs)
    return Adaptation(
        house=house.name,
        method=method,
        seed=seed,
        seconds=round(seconds, 1),
        form=_share(
            _has_form(answer, house, turn)
            for answer, (_, turn) in zip(answers, asked, strict=True)
            if turn.marker and not answer.startswith("[0]")
        ),
        both=_share(
            answer == house.answer(turn) for answer, (_, turn) in zip(answers, asked, strict=True)
        ),
        plain_before=_share(
            _has_value(answer, p.turn) for answer, p in zip(plain_before, plain, strict=True)
        ),
        plain_after=_share(
            _has_value(answer, p.turn) for answer, p in zip(plain_after, plain, strict=True)
        ),
        merged_equal=merged_equal,
    )


def _has_form(answer: str, house: House, turn: Turn) -> bool:
    """Whether the house's word for what was asked stands after the value."""
    return answer.endswith(house.form.format(value="", term=house.terms[turn.attribute]))


def _has_value(answer: str, turn: Turn) -> bool:
    """Whether the value follows the citation, alone or in a house's form."""
    _, _, body = answer.partition(" ")
    return body == turn.value or body.startswith((f"{turn.value} |", f"{turn.value} ("))


def _share(hits: Iterator[bool]) -> float:
    counted = list(hits)
    return round(100 * sum(counted) / len(counted), 1)


def _answers(llm: Phi3LLM, prompts: Sequence[list[Message]]) -> list[str]:
    from llama_index.core.llms import ChatMessage

    texts = []
    for prompt in prompts:
        messages = [ChatMessage(role=m["role"], content=m["content"]) for m in prompt]
        texts.append(str(llm.chat(messages).message.content).strip())
    return texts


def _house_pool() -> list[Attribute]:
    def attribute(name: str, units: tuple[str, ...]) -> Attribute:
        return plain_attribute(
            name, "measured", lambda draw: values.quantity(draw, units), numeric=True
        )

    return [attribute(name, units) for name, units in _UNITS.items()]


def _house_questions(house: House, seed: int, split: Split) -> Iterator[tuple[list[Message], Turn]]:
    draw = Draw(seed, split)
    pool = _house_pool()
    difficulty = Difficulty(passages=(3, 3), questions=2, unanswerable=0.2)
    while True:
        chosen = draw.sample(pool, 4)
        family = document_family(draw, passages=3, max_facts=3, filler=0.3, pool=chosen)
        passages = list(family.passages)
        absent = tuple(fact for fact in family.absent if fact.attribute in house.terms)
        family = replace(family, absent=absent)
        for turn in draw_turns(draw, passages, [family], difficulty):
            contents = [passage.content for passage in passages]
            yield DEFAULT_PROMPT.grounded(turn.question, contents), turn


def _train_set(house: House, *, rows: int, replayed: int, seed: int) -> TrainingSet:
    made = [
        _row(prompt, house.answer(turn), "grounded" if turn.marker else "missing")
        for prompt, turn in islice(_house_questions(house, seed, "train"), rows)
    ]
    plain = islice(_strange_to(house, seed), replayed)
    made += [
        _row(DEFAULT_PROMPT.grounded(p.turn.question, p.passages), p.turn.answer, "replay")
        for p in plain
    ]
    report = TrainingReport(questions=len(made), counts=count_rows(made))
    return TrainingSet(
        rows=tuple(made), prompt_fingerprint=DEFAULT_PROMPT.fingerprint, report=report
    )


def _strange_to(house: House, seed: int) -> Iterator[Asked]:
    """Questions of all kinds, but about nothing that the house has a word for."""
    for item in held_out_questions(3, {}, seed, split="train"):
        if not any(name in item.turn.attribute.casefold() for name in house.terms):
            yield item


def _row(prompt: list[Message], answer: str, kind: Slice) -> TrainingRow:
    return TrainingRow(
        prompt=prompt, completion=[{"role": "assistant", "content": answer}], slice=kind
    )
