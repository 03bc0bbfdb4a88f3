"""Are the citations of the query engine true? Every quote, and the share that leads to the source.

Asks the questions of an example through the whole engine: retrieval, prompt, embedded model,
checks. Prints for each strategy

- emitted quotes that are exact substrings of the node they cite (wanted: all),
- citation precision: verified citations that lead to a gold passage, of all in the answers,
- citation recall: answered questions whose gold passage is cited, of the answerable ones,
- what the checks changed: answers abstained from, markers put right, quotes taken out.

    python benchmarks/citation_quality.py examples/plant --limit 300

Figures of quality; other work on the machine does not change them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from phi3_industry import KnowledgeBase, Phi3LLM, load_embedding
from phi3_industry.grounding.citations import parse_answer
from phi3_industry.grounding.matching import stands_in
from phi3_industry.grounding.questions import Question, load_questions


def names_of(node: Any) -> set[str]:
    """Give all names by which a question may point at a node."""
    known = {node.node_id, str(node.metadata.get("source_id", "")), str(node.ref_doc_id)}
    return known - {"", "None"}


def measure(engine: Any, questions: list[Question]) -> Counter[str]:
    """Ask all questions and count."""
    counts: Counter[str] = Counter()
    for question in questions:
        response = engine.query(question.question)
        facts = response.metadata
        nodes = {found.node.node_id: found.node for found in response.source_nodes}
        for kind in ("citations", "quotes"):
            for item in facts.get(kind, []):
                text = item.get("quote", item.get("text", ""))
                if item["node_id"] is None or not text:
                    continue
                counts["quotes"] += 1
                content = nodes[item["node_id"]].get_content(metadata_mode="llm")
                counts["exact quotes"] += text in content
        counts["asked"] += 1
        counts["answerable"] += question.answerable
        counts["abstained"] += facts["abstained"]
        counts["unsupported"] += facts["supported"] is False
        counts["changed"] += "raw_answer" in facts
        if not question.answerable:
            counts["wrongly answered"] += not facts["abstained"]
            continue
        body = parse_answer(response.response).body
        counts["right values"] += any(stands_in(answer, body) for answer in question.answers)
        if facts["abstained"]:
            continue
        gold = set(question.gold_ids)
        cited = [item for item in facts["citations"] if item["verified"]]
        counts["citations"] += len(facts["citations"])
        right = [item for item in cited if names_of(nodes[item["node_id"]]) & gold]
        counts["citations of gold"] += len(right)
        counts["questions with gold cited"] += bool(right)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("example", type=Path, help="folder with documents/ and questions*.jsonl")
    parser.add_argument("--questions", help="file in it; the dev questions if there are any")
    parser.add_argument("--limit", type=int, default=300, help="questions to ask")
    parser.add_argument("--similarity-top-k", type=int, default=3)
    parser.add_argument("--strategies", nargs="*", default=["rag", "auto"])
    arguments = parser.parse_args()
    file = arguments.questions
    if file is None:
        dev = arguments.example / "questions.dev.jsonl"
        file = dev.name if dev.is_file() else "questions.jsonl"
    questions = load_questions(arguments.example / file)[: arguments.limit]
    llm = Phi3LLM(model="embedded")
    with (
        tempfile.TemporaryDirectory() as folder,
        KnowledgeBase.open(folder, embed_model=load_embedding("embedded")) as kb,
    ):
        kb.add(arguments.example / "documents")
        for strategy in arguments.strategies:
            engine = kb.as_query_engine(
                llm, strategy=strategy, similarity_top_k=arguments.similarity_top_k
            )
            counts = measure(engine, questions)
            citations, answerable = counts["citations"], counts["answerable"]
            print(f"{arguments.example.name}, {strategy}: {counts['asked']} questions")
            print(f"  exact quotes      {counts['exact quotes']} of {counts['quotes']}")
            print(f"  citation precision {counts['citations of gold']} of {citations}")
            print(f"  citation recall   {counts['questions with gold cited']} of {answerable}")
            print(f"  right values      {counts['right values']} of {answerable}")
            print(
                f"  abstained {counts['abstained']}, of these for want of support "
                f"{counts['unsupported']}; answers changed {counts['changed']}; unanswerable "
                f"answered {counts['wrongly answered']} of {counts['asked'] - answerable}"
            )


if __name__ == "__main__":
    main()
