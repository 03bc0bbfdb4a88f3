"""The report: one safe file with everything in it."""

import base64
import dataclasses
from html.parser import HTMLParser
from pathlib import Path

import pytest
from llama_index.core.base.response.schema import Response

from phi3_industry.evaluation.compare import compare_strategies
from phi3_industry.evaluation.costs import Prices
from phi3_industry.evaluation.markup import Markup, element, join
from phi3_industry.evaluation.plots import IntervalBar, interval_plot
from phi3_industry.evaluation.report import image_data_uri
from phi3_industry.grounding.questions import Question

ATTACK = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>&lt;"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


class Page(HTMLParser):
    """Notes the elements, attributes and text of a page, and that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in {"meta", "img", "input", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def written(result, tmp_path: Path, **settings) -> tuple[str, Page]:
    path = tmp_path / "report.html"
    result.to_html(path, **settings)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    return text, page


def test_the_report_holds_table_verdict_contrasts_and_settings(compared, tmp_path: Path) -> None:
    result = compared(30, unanswerable=5)
    text, page = written(
        result, tmp_path, title="Pumps", date="1 May 2026", settings={"hardware": "one old laptop"}
    )
    shown = "".join(page.text)
    assert str(result.recommendation) in shown
    assert "35 questions, asked under 4 strategies, 1 May 2026." in shown
    assert "RAG + fine-tuned vs RAG" in shown
    assert "30 of them, seed 0" in shown
    for setting in ("scripted", "pumps", "one old laptop", "llama-index-core"):
        assert setting in shown
    assert page.tags.count("h1") == 1
    assert text.startswith("<!doctype html>")


def test_each_question_opens_to_its_answers_and_passages(compared, tmp_path: Path) -> None:
    result = compared(6, unanswerable=2)
    _, page = written(result, tmp_path)
    assert page.attributes.count(("details", "class", "more")) == 1
    assert page.tags.count("details") == 8 + 1
    assert page.tags.count("article") == 32
    shown = "".join(page.text)
    assert "[1] 6.5 bar | PDIS" in shown
    assert "Pump P-6: pressure 6.5 bar" in shown
    assert "asked for rag_fine_tuned" in shown
    assert "cited by RAG, RAG + fine-tuned" in shown
    assert "made up" in shown


def test_kinds_of_questions_and_costs_have_their_sections(
    scripted, questions, tmp_path: Path
) -> None:
    asked = [
        dataclasses.replace(one, metadata={**one.metadata, "stratum": '"><b>odd'})
        if number < 25
        else one
        for number, one in enumerate(questions(30, unanswerable=3))
    ]
    result = compare_strategies(
        scripted(asked),
        questions=asked,
        prices=Prices(per_million_prompt_tokens=1, training=5, currency="EUR"),
        show_progress=False,
    )
    text, page = written(result, tmp_path)
    shown = "".join(page.text)
    assert '"><b>odd, 25 questions' in shown
    assert "Differences on 25 questions" in shown
    assert "5.0 EUR" in shown
    assert "The cheapest first: base, fine-tuned, RAG, RAG + fine-tuned." in shown
    # one button and one rule for each kind, whose own name stands in neither id nor style
    assert text.count('id="show-kind-') == 3
    assert "#show-kind-2:checked) .question:not(.kind-2)" in text
    assert page.attributes.count(("details", "class", "question wrong kind-2")) <= 3
    assert (
        sum(name == "class" and "kind-0" in value.split() for _, name, value in page.attributes)
        == 25
    )


def test_provenance_is_drawn_as_shares(questions, tmp_path: Path) -> None:
    traced = {
        "passages": [{"marker": 1, "node_id": "n", "nats": 3.0, "share": 0.6}],
        "weights": {"share": 0.4, "base_share": 0.1, "adapter_share": 0.3},
    }

    class Tracing:
        def __init__(self, provenance=None):
            self.provenance = provenance

        def with_strategy(self, strategy):
            return Tracing({"base": traced, "rag": {"weights": "much"}}[strategy])

        def query(self, question):
            return Response("1.5 bar", metadata={"provenance": self.provenance})

    result = compare_strategies(
        Tracing(), questions=questions(1), strategies=["base", "rag"], show_progress=False
    )
    _, page = written(result, tmp_path)
    shown = "".join(page.text)
    assert shown.count("came from") == 1  # what is of another shape is left out
    assert "came from: [1] 60 %, the adapter 30 %, the base model 10 %" in shown
    places = [(n, v) for tag, n, v in page.attributes if tag == "rect" and n in ("x", "width")]
    assert places[:4] == [("x", "0.00%"), ("width", "60.00%"), ("x", "60.00%"), ("width", "30.00%")]


def test_the_report_needs_no_other_file_and_no_script(compared, tmp_path: Path) -> None:
    text, page = written(compared(3), tmp_path)
    assert {"script", "link", "iframe", "object", "base"}.isdisjoint(page.tags)
    assert not [one for one in page.attributes if one[1] in {"src", "href", "xlink:href"}]
    assert not [one for one in page.attributes if one[1].startswith("on")]
    for outside in ("url(", "@import", "http:", "https:"):
        assert outside not in text
    policy = next(value for _, name, value in page.attributes if name == "content")
    assert policy.startswith("default-src 'none'")


def test_nothing_that_was_asked_answered_or_read_becomes_markup(
    scripted, questions, tmp_path: Path
) -> None:
    def fails(question: Question) -> str:
        raise RuntimeError(ATTACK)

    safe = questions(2)
    attacked = [
        dataclasses.replace(
            question,
            id=f"{question.id} {ATTACK}",
            question=f"{question.question} {ATTACK}",
            answers=(f"1 bar {ATTACK}",),
            reference=f"1 bar | {ATTACK}",
            gold_ids=(f"{ATTACK}.csv#P-1",),
            metadata={"key": f"P-1 {ATTACK}"},
        )
        for question in safe
    ]
    engine = scripted(attacked, {"base": fails, "fine_tuned": lambda question: ATTACK})
    result = compare_strategies(engine, questions=attacked, show_progress=False)
    text, page = written(
        result,
        tmp_path,
        title=ATTACK,
        date=ATTACK,
        settings={ATTACK: ATTACK},
        figures={ATTACK: "data:image/png;base64,AAAA"},
    )
    assert "script" not in page.tags
    assert "<script" not in text.lower()
    images = [(name, value) for tag, name, value in page.attributes if tag == "img"]
    assert images == [("src", "data:image/png;base64,AAAA"), ("alt", ATTACK)]
    assert not [one for one in page.attributes if one[1].startswith("on")]
    shown = "".join(page.text)
    # title twice, date, setting twice, caption; 2 questions with all that belongs to them
    assert shown.count("<script>alert('x')</script>") > 20


def test_text_of_any_language_is_kept_and_control_characters_are_not(
    scripted, questions, tmp_path: Path
) -> None:
    one = dataclasses.replace(questions(1)[0], question="泵的压力？ دستور \x00\x1b[31m \ud800 Ž")
    result = compare_strategies(scripted([one]), questions=[one], show_progress=False)
    text, page = written(result, tmp_path)
    assert "泵的压力？ دستور \ufffd\ufffd[31m \ufffd Ž" in page.text
    assert "\x00" not in text


def test_a_picture_is_carried_in_the_report(compared, tmp_path: Path) -> None:
    picture = tmp_path / "loss.png"
    picture.write_bytes(PIXEL)
    uri = image_data_uri(picture)
    _, page = written(compared(2), tmp_path, figures={"Loss by step": uri})
    source = next(value for tag, name, value in page.attributes if (tag, name) == ("img", "src"))
    assert base64.b64decode(source.partition(",")[2]) == PIXEL
    assert "Loss by step" in page.text


def test_a_picture_elsewhere_is_refused(compared, tmp_path: Path) -> None:
    for uri in ("https://example.org/loss.png", "loss.png", "data:text/html;base64,AAAA"):
        with pytest.raises(ValueError, match="carries its pictures in itself"):
            compared(1).to_html(tmp_path / "report.html", figures={"Loss": uri})
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(ValueError, match="no picture that a report can show"):
        image_data_uri(tmp_path / "loss.exe")


def test_a_report_without_answerable_questions_is_still_a_report(compared, tmp_path: Path) -> None:
    _, page = written(compared(0, unanswerable=3), tmp_path)
    assert "What makes the difference" not in page.text
    assert page.tags.count("details") == 3 + 1


def test_elements_escape_text_and_attributes() -> None:
    assert element("b", "<i>", element("i", "&"), title='"') == (
        '<b title="&quot;">&lt;i&gt;<i>&amp;</i></b>'
    )
    assert element("input", checked=True, disabled=False, for_="x", data_label="y") == (
        '<input checked for="x" data-label="y">'
    )
    assert isinstance(join("<", Markup("<br>")), Markup)
    assert join("<", Markup("<br>")) == "&lt;<br>"


@pytest.mark.parametrize("name", ["a b", "a>", "", "1a"])
def test_elements_refuse_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        element(name)
    with pytest.raises(ValueError, match="is no name"):
        element("b", **{name: "x"})


def test_bars_stand_where_their_values_are() -> None:
    bar = IntervalBar(value=0.5, low=0.25, high=2.0, kind="house", title="half")
    plot = interval_plot(
        [("one", [bar], "50 %")], low=0, high=1, ticks=[(0, "0"), (1, "1")], description="A bar"
    )
    page = Page(plot)
    places = {name: value for tag, name, value in page.attributes if tag == "circle"}
    assert (places["cx"], places["cy"]) == ("50.00%", "12")
    whisker = [
        (name, value) for tag, name, value in page.attributes if tag == "line" and name[0] == "x"
    ][-2:]
    # what reaches beyond the axis ends at its end
    assert whisker == [("x1", "25.00%"), ("x2", "100.00%")]
    assert ("div", "aria-label", "A bar") in page.attributes
