"""How much each kind of evidence counts when what was found is put in order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Literal

__all__ = ["DEFAULT_WEIGHTS", "FusionWeights"]

_FORMAT = "phi3-industry fusion weights 1"


@dataclass(frozen=True, kw_only=True)
class FusionWeights:
    """The weights of a sum of evidence; only their proportions matter.

    Each kind of evidence is a number of about 0 to 1 within one question; how it is computed
    stands in :mod:`phi3_industry.retrievers.evidence`. A search whose weights are all 0 is not
    made.

    Attributes:
        dense: Nearness of meaning of the passage.
        lexical: Words of the question in the passage.
        letters: Pieces of its words in the passage, which other forms and compounds share.
        document_dense: Nearness of meaning of the best passage found of the same document.
        document_lexical: Words of the question in the best passage found of the same document.
    """

    dense: float = 0.0
    lexical: float = 0.0
    letters: float = 0.0
    document_dense: float = 0.0
    document_lexical: float = 0.0

    def __post_init__(self) -> None:
        values = asdict(self)
        for name, value in values.items():
            if not 0 <= value < float("inf"):
                raise ValueError(
                    f"The weight {name} is {value}; it must be a number of at least 0."
                )
        if not self.searches:
            raise ValueError(f"No search would be made with {values}; dense or lexical must count.")

    @classmethod
    def only(cls, search: Literal["dense", "lexical"]) -> FusionWeights:
        """Return the weights with which one search alone puts passages in order."""
        return cls(dense=float(search == "dense"), lexical=float(search == "lexical"))

    @classmethod
    def of(cls, values: Sequence[float]) -> FusionWeights:
        """Return the weights with these values, in the order of the attributes."""
        names = [field.name for field in fields(cls)]
        return cls(**dict(zip(names, map(float, values), strict=True)))

    @property
    def values(self) -> tuple[float, ...]:
        """The weights in the order of the attributes."""
        return tuple(asdict(self).values())

    @property
    def searches(self) -> tuple[str, ...]:
        """The searches that are to be made: ``"dense"``, ``"lexical"`` or both."""
        wanted = {
            "dense": self.dense or self.document_dense,
            "lexical": self.lexical or self.document_lexical,
        }
        return tuple(name for name, weight in wanted.items() if weight)

    def to_json(self) -> str:
        """Write the weights as a line of JSON."""
        return json.dumps({"format": _FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> FusionWeights:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: It is something else.
        """
        try:
            raw = json.loads(text)
            if raw.pop("format") != _FORMAT:
                raise KeyError("format")
            return cls(**{name: float(value) for name, value in raw.items()})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"These are no fusion weights ({error!r}): {text!r:.80}. Give what "
                "FusionWeights.to_json or FusionWeights.save wrote."
            ) from error

    def save(self, path: str | PathLike[str]) -> None:
        """Write the weights to a file, such as ``fusion.json`` beside the store."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> FusionWeights:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It holds something else.
        """
        return cls.from_json(Path(path).read_text(encoding="utf-8"))


DEFAULT_WEIGHTS = FusionWeights(dense=1.5, lexical=6.0, letters=2.0, document_lexical=1.0)
"""Where nothing was fitted; near what is fitted in ``benchmarks/retrieval_quality.py``."""
