"""Imports of packages that only some abilities need."""

from __future__ import annotations

import importlib
from types import ModuleType

from phi3_industry.errors import MissingDependencyError

__all__ = ["import_optional"]


def import_optional(
    module: str, *, purpose: str, package: str | None = None, extra: str | None = None
) -> ModuleType:
    """Import a module, or say what to install.

    Args:
        module: The module to import, such as ``"docx"``.
        purpose: What it is needed for, as the object of "needed to".
        package: Its name on the package index, if it differs from the module's first part.
        extra: The extra of this library that brings it; ``None`` if the base install does.

    Returns:
        The module.

    Raises:
        MissingDependencyError: The package is not installed. An ``ImportError`` from inside an
            installed package is passed on as it is.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise MissingDependencyError(
            package or module.split(".")[0], purpose=purpose, extra=extra
        ) from error
