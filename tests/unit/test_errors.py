from __future__ import annotations

import inspect

import pytest

from phi3_industry import errors
from phi3_industry._optional import import_optional

TREE = {
    "ConfigurationError": ("Phi3IndustryError", ValueError),
    "TargetModuleError": ("ConfigurationError", ValueError),
    "MissingDependencyError": ("Phi3IndustryError", ImportError),
    "ModelLoadError": ("Phi3IndustryError", RuntimeError),
    "AdapterError": ("Phi3IndustryError", RuntimeError),
    "AdapterMismatchError": ("AdapterError", RuntimeError),
    "AdapterNotFoundError": ("AdapterError", KeyError),
    "PromptTooLongError": ("Phi3IndustryError", ValueError),
    "EngineError": ("Phi3IndustryError", RuntimeError),
    "EngineOverloadedError": ("EngineError", RuntimeError),
    "RequestTimeoutError": ("EngineError", TimeoutError),
    "StoreError": ("Phi3IndustryError", RuntimeError),
    "StoreIdentityError": ("StoreError", RuntimeError),
    "StoreCorruptError": ("StoreError", RuntimeError),
    "StoreLockedError": ("StoreError", RuntimeError),
    "IngestionError": ("Phi3IndustryError", RuntimeError),
    "TrainingDataError": ("Phi3IndustryError", ValueError),
}


def test_the_tree_is_the_one_of_the_design() -> None:
    assert sorted(errors.__all__) == sorted([*TREE, "Phi3IndustryError"])
    for name, (parent, builtin) in TREE.items():
        assert getattr(errors, parent) in getattr(errors, name).__mro__[1:3]
        assert issubclass(getattr(errors, name), builtin)
    drawn = [
        line.split()[-2 if "(" in line else -1]
        for line in (errors.__doc__ or "").split("\n")
        if "──" in line
    ]
    assert sorted(drawn) == sorted(TREE)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            errors.TargetModuleError(["q_proj"], ["qkv_proj", "o_proj"]),
            "LoRA target modules ['q_proj'] are not in this model; its linear layers are "
            "['qkv_proj', 'o_proj']. Phi-3 fuses the query, key and value projections: use "
            "'qkv_proj' in place of 'q_proj', 'k_proj' or 'v_proj', and 'gate_up_proj' in place "
            "of 'gate_proj' or 'up_proj'.",
        ),
        (
            errors.TargetModuleError(["q"], ["wq"]),
            "LoRA target modules ['q'] are not in this model; its linear layers are ['wq'].",
        ),
        (
            errors.MissingDependencyError("python-docx", purpose="read .docx", extra="readers"),
            "The package 'python-docx' is needed to read .docx and is not installed. Install it "
            "with: pip install 'phi3-industry[readers]'",
        ),
        (
            errors.AdapterMismatchError("a", what="rank", expected=8, found=4, advice="Train it."),
            "The adapter 'a' does not fit: rank should be 8, but is 4. Train it.",
        ),
        (
            errors.AdapterNotFoundError("x", ["b", "a"]),
            "There is no adapter 'x'; loaded adapters: 'a', 'b'. Load it first with "
            "llm.load_adapter(path, name=...), or pass the path of a folder that holds "
            "adapter_config.json.",
        ),
        (
            errors.PromptTooLongError(
                needed=5, available=3, context_window=8, max_new_tokens=5, advice="Cut."
            ),
            "The prompt needs 5 tokens and there is room for 3: the context window holds 8 and 5 "
            "are kept for the answer. Cut.",
        ),
        (
            errors.EngineOverloadedError(waiting=9, limit=8),
            "9 requests are waiting and at most 8 may. Try again later, or raise the limit.",
        ),
        (
            errors.RequestTimeoutError(timeout_s=1.5, completion_tokens=3),
            "The request was stopped after 1.5 s with 3 tokens generated. Allow more time or ask "
            "for fewer tokens.",
        ),
        (
            errors.StoreIdentityError("kb", {"dimensions": (384, 768)}),
            "The store 'kb' was built with another embedding. dimensions: the store has 384, "
            "given was 768. Vectors of different embeddings cannot be compared: open it with the "
            "embedding it was built with, or build a new store in another folder.",
        ),
        (
            errors.StoreCorruptError("kb/store.sqlite", problem="it is cut", advice="Restore it."),
            "The file 'kb/store.sqlite' is damaged: it is cut. Restore it.",
        ),
        (
            errors.StoreLockedError("kb", process_id=7, since="2026-01-01T00:00:00"),
            "The store 'kb' is being written to by process 7 since 2026-01-01T00:00:00. One writer "
            "is allowed at a time: wait for it to end, or open the store read-only.",
        ),
        (errors.IngestionError("a.csv", "is empty.", place="row 3"), "'a.csv', row 3: is empty."),
        (
            errors.TrainingDataError("is empty.", source="q.jsonl", record=3, field="answers"),
            "'q.jsonl', record 3, field 'answers': is empty.",
        ),
        (errors.TrainingDataError("There is no row."), "There is no row."),
    ],
)
def test_messages_say_what_was_asked_what_is_true_and_what_to_do(
    error: Exception, message: str
) -> None:
    assert str(error) == message


def test_every_error_is_documented() -> None:
    for name in errors.__all__:
        assert inspect.getdoc(getattr(errors, name)), name


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(errors.MissingDependencyError, match=r"'nowhere-to' .*needed to fly.*\[x\]"):
        import_optional("nowhere.to.be", purpose="fly", package="nowhere-to", extra="x")
    assert import_optional("json", purpose="read").loads("1") == 1
