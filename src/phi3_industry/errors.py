"""The exceptions of this library.

::

    Phi3IndustryError
    ├── ConfigurationError (ValueError)
    │   └── TargetModuleError
    ├── MissingDependencyError (ImportError)
    ├── ModelLoadError (RuntimeError)
    ├── AdapterError (RuntimeError)
    │   ├── AdapterMismatchError
    │   └── AdapterNotFoundError (KeyError)
    ├── PromptTooLongError (ValueError)
    ├── EngineError (RuntimeError)
    │   ├── EngineOverloadedError
    │   └── RequestTimeoutError (TimeoutError)
    ├── StoreError (RuntimeError)
    │   ├── StoreIdentityError
    │   ├── StoreCorruptError
    │   └── StoreLockedError
    ├── IngestionError (RuntimeError)
    └── TrainingDataError (ValueError)

Each error says what was asked, what is true, and what to do next. A constructor takes the
facts, keeps them as attributes and writes the sentence; where every case words its own
sentence, the constructor takes that sentence. A plainly wrong argument stays a built-in
``ValueError`` or ``TypeError``.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

__all__ = [
    "AdapterError",
    "AdapterMismatchError",
    "AdapterNotFoundError",
    "ConfigurationError",
    "EngineError",
    "EngineOverloadedError",
    "IngestionError",
    "MissingDependencyError",
    "ModelLoadError",
    "Phi3IndustryError",
    "PromptTooLongError",
    "RequestTimeoutError",
    "StoreCorruptError",
    "StoreError",
    "StoreIdentityError",
    "StoreLockedError",
    "TargetModuleError",
    "TrainingDataError",
]


class Phi3IndustryError(Exception):
    """Base of every error that this library raises on its own account."""


class ConfigurationError(Phi3IndustryError, ValueError):
    """Settings contradict each other or the model."""


class TargetModuleError(ConfigurationError):
    """A LoRA target names a module that the model does not have.

    Args:
        missing: The requested names that no module of the model matches.
        available: The names of the model's linear layers.
    """

    def __init__(self, missing: Sequence[str], available: Sequence[str]) -> None:
        self.missing = list(missing)
        self.available = list(available)
        hint = ""
        if "qkv_proj" in self.available:
            hint = (
                " Phi-3 fuses the query, key and value projections: use 'qkv_proj' in place of "
                "'q_proj', 'k_proj' or 'v_proj', and 'gate_up_proj' in place of 'gate_proj' or "
                "'up_proj'."
            )
        super().__init__(
            f"LoRA target modules {self.missing} are not in this model; its linear layers are "
            f"{self.available}.{hint}"
        )


class MissingDependencyError(Phi3IndustryError, ImportError):
    """A package is needed that is not installed.

    Args:
        package: The package to install, as on the package index.
        purpose: What it is needed for, as the object of "needed to".
        extra: The extra of this library that brings it; ``None`` if the base install does.
    """

    def __init__(self, package: str, *, purpose: str, extra: str | None = None) -> None:
        self.package = package
        self.purpose = purpose
        self.extra = extra
        target = f"phi3-industry[{extra}]" if extra else package
        super().__init__(
            f"The package '{package}' is needed to {purpose} and is not installed. "
            f"Install it with: pip install '{target}'"
        )


class ModelLoadError(Phi3IndustryError, RuntimeError):
    """A base model cannot be loaded: missing files, too little memory, remote code demanded."""


class AdapterError(Phi3IndustryError, RuntimeError):
    """An adapter folder cannot be used."""


class AdapterMismatchError(AdapterError):
    """An adapter was made for something else than what it is asked to work on.

    Args:
        adapter: Path or name of the adapter.
        what: The property that differs, such as ``"base model"``.
        expected: What the adapter was made for.
        found: What is there.
        advice: What to do, as a sentence.
    """

    def __init__(
        self, adapter: str, *, what: str, expected: object, found: object, advice: str
    ) -> None:
        self.adapter = adapter
        self.what = what
        self.expected = expected
        self.found = found
        super().__init__(
            f"The adapter '{adapter}' does not fit: {what} should be {expected}, "
            f"but is {found}. {advice}"
        )


class AdapterNotFoundError(AdapterError, KeyError):
    """No adapter of that name is loaded, or there is no adapter folder at that path.

    Args:
        name: The name or path that was asked for.
        available: Names of the adapters that are loaded.
    """

    def __init__(self, name: str, available: Sequence[str] = ()) -> None:
        self.name = name
        self.available = sorted(available)
        loaded = ", ".join(f"'{known}'" for known in self.available) or "none"
        self.message = (
            f"There is no adapter '{name}'; loaded adapters: {loaded}. Load it first with "
            "llm.load_adapter(path, name=...), or pass the path of a folder that holds "
            "adapter_config.json."
        )
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return self.message


class PromptTooLongError(Phi3IndustryError, ValueError):
    """A prompt does not fit into the model's context window.

    Args:
        needed: Tokens of the prompt, the chat template's own included.
        available: Tokens there are for a prompt.
        context_window: The model's context window in tokens.
        max_new_tokens: Tokens kept free for the answer.
        advice: What to shorten, as a sentence.
    """

    def __init__(
        self,
        *,
        needed: int,
        available: int,
        context_window: int,
        max_new_tokens: int,
        advice: str = "Shorten the prompt or lower max_new_tokens.",
    ) -> None:
        self.needed = needed
        self.available = available
        self.context_window = context_window
        self.max_new_tokens = max_new_tokens
        super().__init__(
            f"The prompt needs {needed} tokens and there is room for {available}: the context "
            f"window holds {context_window} and {max_new_tokens} are kept for the answer. {advice}"
        )


class EngineError(Phi3IndustryError, RuntimeError):
    """Computing tokens failed."""


class EngineOverloadedError(EngineError):
    """The queue of waiting requests is full.

    Args:
        waiting: Requests that are waiting already; ``None`` if a server did not say.
        limit: The most that may wait; likewise.
        server: Address of the server that is overloaded; ``None`` for this process.
    """

    def __init__(
        self, *, waiting: int | None = None, limit: int | None = None, server: str | None = None
    ) -> None:
        self.waiting = waiting
        self.limit = limit
        self.server = server
        super().__init__(
            f"{waiting} requests are waiting and at most {limit} may. Try again later, or raise "
            "the limit."
            if server is None
            else f"The server {server} has too many requests. Try again later, send fewer at a "
            "time, or start more servers."
        )


class RequestTimeoutError(EngineError, TimeoutError):
    """A request took longer than it was allowed to.

    Args:
        timeout_s: The time that was allowed, in seconds.
        completion_tokens: Tokens that were generated by then.
    """

    def __init__(self, *, timeout_s: float, completion_tokens: int) -> None:
        self.timeout_s = timeout_s
        self.completion_tokens = completion_tokens
        super().__init__(
            f"The request was stopped after {timeout_s:g} s with {completion_tokens} tokens "
            "generated. Allow more time or ask for fewer tokens."
        )


class StoreError(Phi3IndustryError, RuntimeError):
    """A vector store cannot do what it was asked to."""


class StoreIdentityError(StoreError):
    """A store was built with another embedding than the one it is opened with.

    Args:
        path: The store's folder.
        differences: For each property that differs, what the store has and what was given.
    """

    def __init__(
        self, path: str | PathLike[str], differences: dict[str, tuple[object, object]]
    ) -> None:
        self.path = str(path)
        self.differences = dict(differences)
        listed = "; ".join(
            f"{name}: the store has {stored!r}, given was {given!r}"
            for name, (stored, given) in self.differences.items()
        )
        super().__init__(
            f"The store '{self.path}' was built with another embedding. {listed}. Vectors of "
            "different embeddings cannot be compared: open it with the embedding it was built "
            "with, or build a new store in another folder."
        )


class StoreCorruptError(StoreError):
    """A file of a store is damaged.

    Args:
        path: The damaged file.
        problem: What is wrong with it.
        advice: What to do, as a sentence.
    """

    def __init__(self, path: str | PathLike[str], *, problem: str, advice: str) -> None:
        self.path = str(path)
        self.problem = problem
        super().__init__(f"The file '{self.path}' is damaged: {problem}. {advice}")


class StoreLockedError(StoreError):
    """Another process is writing to the store.

    Args:
        path: The store's folder.
        process_id: The process that holds the lock.
        since: When it took the lock, as ISO 8601 text.
    """

    def __init__(self, path: str | PathLike[str], *, process_id: int, since: str) -> None:
        self.path = str(path)
        self.process_id = process_id
        self.since = since
        super().__init__(
            f"The store '{self.path}' is being written to by process {process_id} since {since}. "
            "One writer is allowed at a time: wait for it to end, or open the store read-only."
        )


class IngestionError(Phi3IndustryError, RuntimeError):
    """A document cannot be read.

    Args:
        source: The document.
        problem: What is wrong with it and what to do.
        place: Where in the document, such as ``"row 12"``; empty if it is the whole of it.
    """

    def __init__(self, source: str | PathLike[str], problem: str, *, place: str = "") -> None:
        self.source = str(source)
        self.problem = problem
        self.place = place
        where = f", {place}" if place else ""
        super().__init__(f"'{self.source}'{where}: {problem}")


class TrainingDataError(Phi3IndustryError, ValueError):
    """Training or question data cannot be used.

    Args:
        problem: What is wrong with it and what to do.
        source: The file, if the data came from one.
        record: Number of the record, counted from 1.
        field: The field of the record.
    """

    def __init__(
        self,
        problem: str,
        *,
        source: str | PathLike[str] | None = None,
        record: int | None = None,
        field: str | None = None,
    ) -> None:
        self.problem = problem
        self.source = None if source is None else str(source)
        self.record = record
        self.field = field
        places = [
            f"'{self.source}'" if self.source else "",
            f"record {record}" if record is not None else "",
            f"field '{field}'" if field else "",
        ]
        where = ", ".join(place for place in places if place)
        super().__init__(f"{where}: {problem}" if where else problem)
