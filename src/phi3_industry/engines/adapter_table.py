"""Adapters in the model: their names, and which token of a pass computes with which."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

from phi3_industry.errors import AdapterError, AdapterNotFoundError
from phi3_industry.models.adapter import attach_adapter, check_fits, read_manifest
from phi3_industry.models.loading import LoadedModel

__all__ = ["AdapterTable"]

_BASE = "__base__"  # PEFT's name for a row without adapter


class AdapterTable:
    """The adapters of one base model.

    PEFT lets each row of a batch name its adapter (``adapter_names``). Packed tokens all lie in
    one row, so that each token is shown to PEFT's layers as a row of its own. There is no active
    adapter that one request could leave behind for another, but for adapters that PEFT refuses
    to mix (DoRA and other variants of LoRA): a pass holds one of those alone.

    Args:
        loaded: The base model.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._model = loaded.model
        self._internal_names: dict[str, str] = {}
        self._alone: set[str] = set()
        self._attached = 0
        self._hooks: list[Any] = []
        self._pass = threading.local()  # others may use the model in their own threads

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the loaded adapters, sorted."""
        return tuple(sorted(self._internal_names))

    def internal_name(self, adapter: str | None) -> str | None:
        """Give the name by which PEFT knows an adapter; ``None`` is the base model.

        Raises:
            AdapterNotFoundError: No adapter of that name is loaded.
        """
        if adapter is None:
            return None
        try:
            return self._internal_names[adapter]
        except KeyError:
            raise AdapterNotFoundError(adapter, self.names) from None

    def is_alone(self, internal_name: str | None) -> bool:
        """Say whether an adapter cannot share a pass with others."""
        return internal_name in self._alone

    @property
    def alone(self) -> tuple[str, ...]:
        """Names of the adapters that cannot share a pass with others, sorted."""
        return tuple(name for name in self.names if self._internal_names[name] in self._alone)

    def load(self, path: str | PathLike[str], *, name: str) -> None:
        """Load an adapter folder; see :meth:`phi3_industry.engines.base.Engine.load_adapter`."""
        if not name:
            raise ValueError("The adapter's name is empty; give it one.")
        manifest = read_manifest(path)
        check_fits(manifest, self._loaded, adapter=path)
        if name in self._internal_names:
            raise ValueError(
                f"An adapter '{name}' is loaded already. Unload it first, or choose another name."
            )
        internal = f"adapter{self._attached}"
        self._model = attach_adapter(self._model, path, internal_name=internal)
        self._attached += 1
        self._internal_names[name] = internal
        self._install()

    def unload(self, name: str) -> str:
        """Forget an adapter, free its memory, and give the name by which PEFT knew it."""
        internal = self.internal_name(name)
        assert internal is not None  # noqa: S101 - a name was asked for
        del self._internal_names[name]
        others = list(self._internal_names.values())
        if others:
            # PEFT warns when its active adapter is deleted
            self._model.set_adapter(others[0], inference_mode=True)
            self._model.delete_adapter(internal)
        else:
            self._model = self._model.unload()  # PEFT cannot hold a model without adapter
        self._install()
        return internal

    @contextmanager
    def applied(self, tokens: Sequence[tuple[str | None, int]]) -> Iterator[None]:
        """Let the tokens of a pass compute with their adapters.

        Args:
            tokens: Internal names of adapters, each with the number of tokens it holds for, in
                the order of the packed tokens.
        """
        known = {None, *self._internal_names.values()}
        if not known.issuperset(adapter for adapter, _ in tokens):
            # PEFT would take the base model without a word
            raise AdapterError(
                "An adapter was unloaded while a request waited for it. Send the request again "
                "with one that is loaded."
            )
        first = tokens[0][0]
        if not self._internal_names:
            yield
            return
        if first is not None and first in self._alone:
            if self._model.active_adapter != first:
                self._model.set_adapter(first, inference_mode=True)
            yield
            return
        self._pass.names = [adapter or _BASE for adapter, count in tokens for _ in range(count)]
        try:
            yield
        finally:
            self._pass.names = None

    def _install(self) -> None:
        """Hook into the layers that hold adapters, and note which adapters cannot be mixed."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._alone = set()
        if not self._internal_names:
            return
        from peft.tuners.lora.layer import LoraLayer

        for module in self._model.modules():
            if isinstance(module, LoraLayer):
                self._hooks.append(module.register_forward_pre_hook(self._unpack, with_kwargs=True))
                self._hooks.append(module.register_forward_hook(self._pack))
                self._alone |= set(module.lora_variant)
                self._alone |= {name for name, used in module.use_dora.items() if used}

    def _unpack(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Show the packed tokens, ``(1, tokens, features)``, as rows with names."""
        names = getattr(self._pass, "names", None)
        if names is None:
            return None
        return (args[0][0], *args[1:]), {**kwargs, "adapter_names": names}

    def _pack(self, _: Any, __: Any, output: Any) -> Any:
        return None if getattr(self._pass, "names", None) is None else output[None]
