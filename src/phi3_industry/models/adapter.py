"""An adapter folder: PEFT's own files and a manifest that says what they were made for.

:mod:`phi3_industry.models.manifest` says whether an adapter fits a base model,
:mod:`phi3_industry.models.lora_layers` whether its weights do; here they reach the model.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from phi3_industry.models.lora_layers import (
    check_weights,
    linear_module_names,
    read_lora_config,
    resolve_target_modules,
)
from phi3_industry.models.manifest import (
    MANIFEST_NAME,
    AdapterManifest,
    check_fits,
    read_manifest,
    write_manifest,
)

__all__ = [
    "MANIFEST_NAME",
    "AdapterManifest",
    "attach_adapter",
    "check_fits",
    "linear_module_names",
    "read_manifest",
    "resolve_target_modules",
    "write_manifest",
]


def attach_adapter(model: Any, folder: str | PathLike[str], *, internal_name: str) -> Any:
    """Put an adapter's weights into a model beside those it has.

    Args:
        model: The base model, or the PEFT model that it has become.
        folder: The adapter folder, checked before.
        internal_name: The name PEFT is to know it by; letters and digits.

    Returns:
        The PEFT model, in evaluation mode; the adapter computes where it is named.

    Raises:
        AdapterError: It is no LoRA adapter, or it replaces whole layers.
        AdapterMismatchError: A weight is missing, unexpected, or of another shape.
        TargetModuleError: The adapter targets a module that the model does not have.
    """
    from peft import PeftModel

    folder = Path(folder)
    config = read_lora_config(folder)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    check_weights(folder, base, config)
    if isinstance(model, PeftModel):
        model.load_adapter(str(folder), adapter_name=internal_name, is_trainable=False)
    else:
        model = PeftModel.from_pretrained(
            model, str(folder), adapter_name=internal_name, is_trainable=False
        )
    return model.eval()
