"""How objects over loaded weights are copied and pickled."""

from __future__ import annotations

from typing import Any, Self

__all__ = ["CopiesShareWeights", "rebuild"]


class CopiesShareWeights:
    """Copies keep the weights; pickles keep the settings. To be put before a LlamaIndex class."""

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy the settings; the weights stay shared."""
        copy: Self = self.model_copy()  # type: ignore[attr-defined]  # of the class that this is put before
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings; the weights are loaded anew where they are unpickled."""
        return rebuild, (type(self), self.to_dict())  # type: ignore[attr-defined]  # likewise


def rebuild(cls: Any, settings: dict[str, Any]) -> Any:
    """Make an object of a LlamaIndex class from its settings, as unpickling has to."""
    return cls.from_dict(settings)
