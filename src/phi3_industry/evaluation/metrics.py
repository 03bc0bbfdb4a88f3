"""How right an answer is: pure functions over texts and ids.

Texts are compared as sequences of words. A script that is written without spaces has no words to
see, so there each character counts as one; nothing else is assumed about the language.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

__all__ = [
    "answer_tokens",
    "citation_right",
    "exact_match",
    "house_match",
    "normalise_answer",
    "quantile",
    "token_f1",
    "value_match",
]

_ARTICLES = frozenset({"a", "an", "the"})
_MEANINGFUL_PUNCTUATION = frozenset("%‰‱#&@§")
_IDLE_SYMBOLS = frozenset("|")
_SIGNS = "-−–"
_UNSPACED_SCRIPTS = frozenset(
    {
        "BOPOMOFO",
        "CJK",
        "HIRAGANA",
        "IDEOGRAPHIC",
        "KATAKANA",
        "KHMER",
        "LAO",
        "MYANMAR",
        "THAI",
        "TIBETAN",
        "YI",
    }
)
"""First words of the Unicode names of their characters."""
_NUMBER = re.compile(r"[0-9]+(?:[.,'’][0-9]+)*")
_CONTINUED_NUMBER = re.compile(r"\s*[-−–—~.,'’/:x×]?\s*\d")
_CONTINUED_WORD = re.compile(r"[^\w\s|;()\[\]{}<>]*\w")


def normalise_answer(text: str) -> str:
    """Reduce an answer to what is compared: its words and numbers, one space between them.

    Letter case, width (``３８`` and ``38``), the digits' script, punctuation and the amount of
    white space do not count. A decimal point, a sign before a number, a percent sign and symbols
    such as ``°`` or ``$`` do, because they change a value. The English articles are left out
    where a word follows, as is usual for exact match, but not after a number: "5 A" keeps its
    unit.

    Source: the list of articles is that of SQuAD's evaluation (Rajpurkar et al. 2016,
    arXiv:1606.05250); the rest departs from it, since there "38.2" and "382" are equal.

    Args:
        text: An answer.

    Returns:
        The normalised text; empty if nothing but punctuation is in it.
    """
    return " ".join(answer_tokens(text))


def answer_tokens(text: str) -> list[str]:
    """Split an answer into the tokens that :func:`token_f1` counts.

    Args:
        text: An answer.

    Returns:
        Words, numbers and symbols, and single characters of scripts without spaces; normalised
        as :func:`normalise_answer` says.
    """
    return [token for token, _ in _tokens(_fold(text))]


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Tell whether a prediction equals one of the answers after normalisation.

    Args:
        prediction: What was answered, without its citation.
        answers: Right answers, any one of which suffices.

    Returns:
        Whether it equals one. Texts of nothing but punctuation are compared as they are.

    Raises:
        ValueError: ``answers`` is empty.
    """
    _require_answers(answers)
    normalised = normalise_answer(prediction)
    return any(
        normalised == normalise_answer(answer) if normalised else house_match(prediction, answer)
        for answer in answers
    )


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of the answer's tokens, for the best of the answers.

    Args:
        prediction: What was answered, without its citation.
        answers: Right answers, any one of which suffices.

    Returns:
        A share between 0 and 1.

    Raises:
        ValueError: ``answers`` is empty.
    """
    _require_answers(answers)
    predicted = Counter(answer_tokens(prediction))
    return max(_f1(predicted, Counter(answer_tokens(answer))) for answer in answers)


def value_match(body: str, answers: Sequence[str]) -> bool:
    """Tell whether an answer gives the right value, whatever the house wants said after it.

    It does if it equals one of the answers, or begins with one that ends there: followed by
    white space or by a bracket, a bar or a semicolon. So "38.2 bar | PDIS" and "38.2 bar (PDIS)"
    give "38.2 bar"; "38.2" does not give "38", "3 bars" not "3 bar", "10-20" and "10 – 20" not
    "10", and "P-4471" not "P".

    A value in the middle of a sentence is not looked for: the prompt asks for it first.

    Args:
        body: What was answered, without its citation.
        answers: Right answers, any one of which suffices.

    Returns:
        Whether the value is right.

    Raises:
        ValueError: ``answers`` is empty.
    """
    if exact_match(body, answers):
        return True
    folded = _fold(body)
    found = _tokens(folded)
    return any(_begins_with(folded, found, answer_tokens(answer)) for answer in answers)


def house_match(body: str, reference: str) -> bool:
    """Tell whether an answer is the reference to the letter: right fact in the house's format.

    Args:
        body: What was answered, without its citation.
        reference: The wanted answer.

    Returns:
        Whether they are the same but for the amount of white space and for the way in which
        Unicode composes a letter with its accents.
    """
    wanted, given = (
        " ".join(unicodedata.normalize("NFC", text).split()) for text in (reference, body)
    )
    return wanted == given


def citation_right(
    cited: Iterable[Collection[str]], verified: Iterable[bool], gold_ids: Collection[str]
) -> bool:
    """Tell whether an answer's citations lead to where the answer stands.

    Args:
        cited: For each citation the names of the cited passage: its node id, ``source_id`` and
            document id; empty if there is no such passage.
        verified: For each citation whether what it covers stands in the passage.
        gold_ids: Names of the passages that hold the answer.

    Returns:
        Whether there is a citation, and each is verified and names a gold passage.
    """
    gold = set(gold_ids)
    checks = [
        stands and not gold.isdisjoint(names) for names, stands in zip(cited, verified, strict=True)
    ]
    return bool(checks) and all(checks)


def quantile(values: Sequence[float], q: float) -> float:
    """Give a quantile of some values, interpolating between neighbours.

    Source: definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages", The
    American Statistician 50(4), 1996; NumPy's default.

    Args:
        values: At least one number, in any order.
        q: Which quantile, between 0 and 1; 0.5 is the median.

    Returns:
        The quantile, in the unit of the values.

    Raises:
        ValueError: There is no value, or ``q`` is out of range.
    """
    if not values:
        raise ValueError("A quantile needs at least one value; none was given.")
    if not 0 <= q <= 1:
        raise ValueError(f"q is {q}; a quantile lies between 0 and 1.")
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _require_answers(answers: Sequence[str]) -> None:
    if not answers:
        raise ValueError(
            "answers is empty: the documents hold no answer, so nothing can be compared with "
            "one. Score such a question by whether it was abstained from."
        )
    if isinstance(answers, str):
        raise ValueError(f"answers is the text {answers!r:.60}; give a list of texts.")


def _f1(predicted: Counter[str], wanted: Counter[str]) -> float:
    if not predicted or not wanted:
        return float(predicted == wanted)
    common = (predicted & wanted).total()
    return 2 * common / (predicted.total() + wanted.total())


def _begins_with(folded: str, found: list[tuple[str, int]], wanted: list[str]) -> bool:
    """Tell whether a folded text begins with the wanted tokens, and a value may end there."""
    if not wanted or [token for token, _ in found[: len(wanted)]] != wanted:
        return False
    rest = folded[found[len(wanted) - 1][1] :]
    if wanted[-1][-1].isdigit() and _CONTINUED_NUMBER.match(rest):
        return False
    return not _CONTINUED_WORD.match(rest)


def _fold(text: str) -> str:
    """Level out width, composition, case and the script of digits."""
    narrow = "".join(
        unicodedata.normalize("NFKC", character)
        if unicodedata.east_asian_width(character) in "FH"
        else character
        for character in text
    )
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", narrow).casefold())
    return "".join(_plain(character) for character in folded)


def _plain(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Cf":  # joiners, soft hyphens, direction marks: nothing one sees
        return ""
    return {"٫": ".", "٬": ","}.get(character, character)


def _tokens(folded: str) -> list[tuple[str, int]]:
    """Split a folded text into tokens, each with the place where it ends."""
    tokens: list[tuple[str, int]] = []
    position = 0
    while position < len(folded):
        end = _token_end(folded, position)
        token = folded[position:end]
        position = end
        if _counts(token):
            tokens.append((re.sub(f"^[{_SIGNS}]", "-", token), end))
    return [
        (token, end)
        for index, (token, end) in enumerate(tokens)
        if not (token in _ARTICLES and _is_article(tokens, index))
    ]


def _is_article(tokens: list[tuple[str, int]], index: int) -> bool:
    """Tell an article from a unit or a name: a word follows, and no number stands before."""
    follows = index + 1 < len(tokens)
    after_number = index > 0 and tokens[index - 1][0][-1].isdigit()
    return follows and not after_number


def _token_end(text: str, start: int) -> int:
    """Find where the token ends that starts at a place."""
    first = text[start]
    signed = (
        first in _SIGNS
        and text[start + 1 : start + 2].isdigit()
        and not (start and text[start - 1].isalnum())
    )
    number = _NUMBER.match(text, start + signed)
    if number:
        return number.end()
    end = start + 1
    if not _is_word(first):
        return end
    unspaced = _is_unspaced(first)
    while end < len(text) and _is_word(text[end]):
        is_mark = unicodedata.category(text[end])[0] == "M"
        if not is_mark and (unspaced or _is_unspaced(text[end])):
            break
        end += 1
    return end


def _counts(token: str) -> bool:
    """Tell whether a token is compared, or is punctuation or white space."""
    character = token[-1]
    if _is_word(character) or character in _MEANINGFUL_PUNCTUATION:
        return True
    category = unicodedata.category(character)
    return category in {"Sm", "Sc", "So"} and character not in _IDLE_SYMBOLS


def _is_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


@lru_cache(maxsize=4096)
def _is_unspaced(character: str) -> bool:
    """Tell whether a character belongs to a script that is written without spaces."""
    if character.isascii():
        return False
    name = unicodedata.name(character, "")
    return re.split(r"[\s-]", name, maxsplit=1)[0] in _UNSPACED_SCRIPTS
