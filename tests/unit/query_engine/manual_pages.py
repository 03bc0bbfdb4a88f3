"""One page of a manual in five languages: passages, questions, and what answers them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAGES", "Entry", "Page"]


@dataclass(frozen=True)
class Entry:
    """A passage, a question about it, its answer, and a sentence that says so."""

    passage: str
    question: str
    answer: str
    sentence: str


@dataclass(frozen=True)
class Page:
    """The page in one language; what it does not say; how to say that one does not know."""

    entries: tuple[Entry, ...]
    missing: str
    wrong: str
    unknown: str


PAGES = {
    "en": Page(
        entries=(
            Entry(
                "Pump P-4471: rated discharge pressure 38.2 bar",
                "What is the rated discharge pressure of P-4471?",
                "38.2 bar",
                "The rated discharge pressure of pump P-4471 is 38.2 bar",
            ),
            Entry(
                "Pump P-4471: lubricant Tovex 32, change every 4000 h",
                "Which lubricant does P-4471 take?",
                "Tovex 32",
                "Pump P-4471 takes the lubricant Tovex 32",
            ),
            Entry(
                "Pump P-4471: vibration alarm at 7.1 mm/s",
                "At which vibration is there an alarm?",
                "7.1 mm/s",
                "The vibration alarm of P-4471 is at 7.1 mm/s",
            ),
        ),
        missing="What colour is the housing?",
        wrong="The rated discharge pressure is 39.2 bar",
        unknown="The manual does not say.",
    ),
    "zh": Page(
        entries=(
            Entry(
                "泵 P-4471：额定出口压力为 38.2 bar",
                "P-4471 的额定出口压力是多少？",
                "38.2 bar",
                "泵 P-4471 的额定出口压力为 38.2 bar",
            ),
            Entry(
                "泵 P-4471：润滑油为 Tovex 32，每 4000 小时更换",
                "P-4471 用什么润滑油？",
                "Tovex 32",
                "泵 P-4471 的润滑油为 Tovex 32",
            ),
            Entry(
                "泵 P-4471：振动报警值为 7.1 mm/s",
                "振动报警值是多少？",
                "7.1 mm/s",
                "振动报警值为 7.1 mm/s",
            ),
        ),
        missing="外壳是什么颜色？",
        wrong="额定出口压力为 39.2 bar",
        unknown="手册中没有说明。",
    ),
    "ja": Page(
        entries=(
            Entry(
                "ポンプ P-4471：定格吐出圧力は 38.2 bar",
                "P-4471 の定格吐出圧力はいくらですか？",
                "38.2 bar",
                "ポンプ P-4471 の定格吐出圧力は 38.2 bar",
            ),
            Entry(
                "ポンプ P-4471：潤滑油は Tovex 32、4000 時間ごとに交換",
                "P-4471 の潤滑油は何ですか？",
                "Tovex 32",
                "ポンプ P-4471 の潤滑油は Tovex 32",
            ),
            Entry(
                "ポンプ P-4471：振動警報値は 7.1 mm/s",
                "振動警報値はいくらですか？",
                "7.1 mm/s",
                "振動警報値は 7.1 mm/s",
            ),
        ),
        missing="ハウジングの色は何ですか？",
        wrong="定格吐出圧力は 39.2 bar",
        unknown="取扱説明書に記載がありません。",
    ),
    "ru": Page(
        entries=(
            Entry(
                "Насос P-4471: номинальное давление нагнетания 38,2 бар",
                "Каково номинальное давление нагнетания P-4471?",
                "38,2 бар",
                "Номинальное давление нагнетания насоса P-4471 составляет 38,2 бар",
            ),
            Entry(
                "Насос P-4471: смазка Tovex 32, замена каждые 4000 ч",
                "Какая смазка у P-4471?",
                "Tovex 32",
                "Для насоса P-4471 смазка Tovex 32",
            ),
            Entry(
                "Насос P-4471: сигнализация вибрации при 7,1 мм/с",
                "При какой вибрации срабатывает сигнализация?",
                "7,1 мм/с",
                "Сигнализация вибрации срабатывает при 7,1 мм/с",
            ),
        ),
        missing="Какого цвета корпус?",
        wrong="Номинальное давление нагнетания составляет 39,2 бар",
        unknown="В руководстве этого нет.",
    ),
    "cs": Page(
        entries=(
            Entry(
                "Čerpadlo P-4471: jmenovitý výtlačný tlak 38,2 bar",
                "Jaký je jmenovitý výtlačný tlak P-4471?",
                "38,2 bar",
                "Jmenovitý výtlačný tlak čerpadla P-4471 je 38,2 bar",
            ),
            Entry(
                "Čerpadlo P-4471: mazivo Tovex 32, výměna po 4000 h",
                "Jaké mazivo má P-4471?",
                "Tovex 32",
                "Čerpadlo P-4471 má mazivo Tovex 32",
            ),
            Entry(
                "Čerpadlo P-4471: alarm vibrací při 7,1 mm/s",
                "Při jakých vibracích je alarm?",
                "7,1 mm/s",
                "Alarm vibrací je při 7,1 mm/s",
            ),
        ),
        missing="Jakou barvu má skříň?",
        wrong="Jmenovitý výtlačný tlak je 39,2 bar",
        unknown="V příručce to není.",
    ),
}
