"""Questions in many languages and in none, so that a reader minds the names and not the words.

Every template names a subject ``{e}`` and an attribute ``{a}``, or the subject alone. Held-out
wordings are none of these; Czech, in which some of them are put, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import values
from .draw import Draw

__all__ = ["many_worded_key_question", "many_worded_question"]

# Requests and links between attribute and subject: "Wie lautet {a} von {e}?"
_REQUEST_LANGUAGES = (
    (
        "Give|Name|Report|Read out|Which is|What would be|What is listed as|What figure has|Get me|"
        "What number is|How large is|How big is|How much would be|What amounts to|Say|Search|Show",
        "of|for|with|on|at|under|beside|held by|belonging to|in the row of|in the case of",
    ),
    (
        "Was ist|Wie lautet|Nenne mir|Gib mir|Ich brauche|Wie hoch ist|Zeige|Sag mir|Wie groß ist",
        "von|für|bei|der|des|zu|am",
    ),
    (
        "Quelle est la valeur de|Donne-moi|Indique|Je cherche|Trouve|Dis-moi|Combien vaut",
        "de|pour|du|chez|sur",
    ),
    (
        "Dime|Qué valor tiene|Necesito|Busca|Indica|Cuánto es|Muestra|¿Qué es|¿Cuánto vale",
        "de|para|en|del|con",
    ),
    ("Qual è|Dimmi|Quanto vale|Indica|Mi serve|Trova|Cerca", "di|per|del|della|su"),
    ("Qual é|Diga-me|Quanto é|Preciso de|Mostre|Informe", "de|para|do|da|em"),
    ("Wat is|Geef|Hoeveel is|Noem|Zoek|Ik zoek|Welke waarde heeft", "van|voor|bij|op"),
    ("Vilket värde har|Ange|Hur stor är|Visa|Jag behöver|Vilken är", "för|hos|på|till|av"),
    ("Hvad er|Angiv|Hvor stor er|Find|Vis|Hva er|Oppgi|Finn", "for|på|til|ved|hos"),
    ("Jaka jest|Podaj|Ile wynosi|Jaką wartość ma|Pokaż|Znajdź|Proszę o", "dla|u|w|przy"),
    ("Koliki je|Navedi|Koja je vrijednost|Reci mi|Kakšen je|Povej|Kolika je", "za|kod|u|pri"),
    ("Каков|Назови|Укажи|Сколько составляет|Какое значение имеет|Найди|Покажи", "у|для|в|на"),
    ("Яке значення|Вкажи|Назви|Скільки|Каква е|Колко е|Посочи", "для|у|в|на|за|при"),
    ("Care este|Spune-mi|Cât este|Indică", "pentru|de la|al|la"),
    ("Ποιο είναι|Πες μου|Βρες", "για|του|στο"),
    ("Berapa|Apa|Sebutkan|Tunjukkan|Cho biết", "untuk|dari|pada|của"),
    ("Mikä on|Kerro|Mennyi|Add meg|Ile|Koks yra|Kas on|Mis on", "kohteelle|esetén|jaoks|no"),
)
# Languages that put the subject first.
_SUBJECT_FIRST = (
    "{e}の{a}を教えて", "{e}の{a}はいくつですか", "{e}について、{a}は？", "{e}：{a}を調べて",
    "{e}的{a}是多少", "请告诉我{e}的{a}", "查一下{e}的{a}", "{e}，{a}是什么", "{e}的{a}呢？",
    "{e}의 {a}는?", "{e} {a} 알려줘", "{e} için {a} nedir?", "{e} {a} kaç?", "{e} - {a} mi?",
    "Mi {e} {a}?", "Mikä on {e} {a}?", "{e} का {a} क्या है?", "ما هو {a} ل {e}?", "{a} של {e}?",
    "U {e}, {a}?", "Bei {e} bitte {a}", "Chez {e}, {a} ?", "Para {e}, {a}?", "Для {e}: {a}?",
)  # fmt: skip
# Subject before attribute, as one asks for a year: "What were the {e} during {a}?"
_WHEN_REQUESTS = (
    "How high was", "How high were", "What sum was", "Report", "What figure is there for",
    "Show me", "What total had", "I need", "What did we have as", "How large were", "Give me",
    "How much came from", "What do we see for", "Wie hoch war", "Combien pour", "Cuánto fue",
    "Quanto era", "Сколько было", "Hur mycket var", "Hoeveel was", "How many were", "State",
    "What was the sum of", "What was the total of", "What number stands for", "What was noted for",
)  # fmt: skip
_WHEN_LINKS = (
    "in", "in", "in", "for", "during", "as of", "under", "at", "by", "within", "on the side of",
    "im Jahr", "en", "nel", "в", "i", "for the period", "in the column", "through", "over",
)  # fmt: skip
_KEY_REQUESTS = (
    "What is the entry for", "What figure is given for", "What stands beside", "Tell me about",
    "What goes with", "Which value belongs to", "What is listed for", "What is set for", "Report",
    "How high is", "How large is", "What has been entered for", "What is known of", "Look at",
    "What number has", "What is there on", "What do we have for", "Was gilt für", "Qué hay para",
    "Quel est le chiffre pour", "Что указано для", "Vad gäller för", "Wat geldt voor", "Name",
    "What would the sheet say of", "Which number belongs to", "What data is there for", "Show",
    "Give me the value for", "Which value has", "The value beside", "Tell me the value at",
    "What value is there for", "Is there a value for", "Read the value next to", "Value for",
    "What amount has", "The number for", "I need the figure of", "Find what belongs to",
)  # fmt: skip
_ENDS = ("?", "?", "?", "?", ".", "", " ?", "!")


def many_worded_question(draw: Draw) -> str:
    """Draw a question template with ``{e}`` and ``{a}``."""
    return draw.pick(
        (50, lambda: _request(draw)),
        (12, lambda: draw.choice(_SUBJECT_FIRST)),
        (23, lambda: _when(draw)),
        (15, lambda: _invented(draw)),
    )


def many_worded_key_question(draw: Draw) -> str:
    """Draw a question template with ``{e}`` alone, for rows with a single value."""
    words = _unknown_words(draw) if draw.chance(0.2) else draw.choice(_KEY_REQUESTS)
    return f"{words} {{e}}{draw.choice(_ENDS)}"


def _request(draw: Draw) -> str:
    requests, links = draw.choice(_REQUEST_LANGUAGES)
    request, link = draw.choice(requests.split("|")), draw.choice(links.split("|"))
    article = draw.choice(("", "", "the ")) if (requests, links) == _REQUEST_LANGUAGES[0] else ""
    names = f"{article}{{a}} {link} {{e}}"
    if draw.chance(0.15):
        names = f"{link} {{e}}: {{a}}"
    return f"{request} {names}{draw.choice(_ENDS)}"


def _when(draw: Draw) -> str:
    article = draw.choice(("", "the ", "our "))
    request, link = draw.choice(_WHEN_REQUESTS), draw.choice(_WHEN_LINKS)
    return f"{request} {article}{{e}} {link} {{a}}{draw.choice(_ENDS)}"


def _invented(draw: Draw) -> str:
    """A question in a language that does not exist."""
    names: Sequence[str] = ("{a}", "{e}") if draw.chance(0.6) else ("{e}", "{a}")
    between = draw.choice((_unknown_words(draw), ",", ":", _unknown_words(draw)[:3]))
    lead = _unknown_words(draw) if draw.chance(0.8) else ""
    return f"{lead} {names[0]} {between} {names[1]}{draw.choice(_ENDS)}".strip()


def _unknown_words(draw: Draw) -> str:
    words = (
        values.foreign_word(draw) if draw.chance(0.15) else values.random_word(draw).lower()
        for _ in range(draw.randint(1, 3))
    )
    return " ".join(words)
