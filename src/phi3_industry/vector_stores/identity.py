"""What made a store's vectors, and how they are compared: checked whenever it is used."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from phi3_industry.errors import StoreIdentityError

__all__ = ["check_identity", "expected_dimensions"]


def check_identity(
    path: str | PathLike[str],
    meta: Mapping[str, Any],
    *,
    identity: Mapping[str, Any] | None,
    metric: str,
) -> None:
    """Refuse a store that was built otherwise than it is used.

    Args:
        path: The store's folder.
        meta: Its properties.
        identity: What makes the vectors now; ``None`` leaves the check out.
        metric: How they are compared now.

    Raises:
        StoreIdentityError: Names what differs, with both values.
    """
    differences: dict[str, tuple[object, object]] = {}
    stored = meta.get("identity")
    if stored is not None and identity is not None:
        for name in sorted(stored.keys() | identity.keys()):
            if stored.get(name) != identity.get(name):
                differences[name] = (stored.get(name), identity.get(name))
    dimensions = (identity or {}).get("dimensions")
    if dimensions is not None and meta.get("dimensions") not in (None, dimensions):
        differences["dimensions"] = (meta["dimensions"], dimensions)
    if meta.get("metric") not in (None, metric):
        differences["metric"] = (meta["metric"], metric)
    if differences:
        raise StoreIdentityError(path, differences)


def expected_dimensions(meta: Mapping[str, Any], identity: Mapping[str, Any] | None) -> int | None:
    """Return the length that vectors must have, or ``None`` if nothing settles it yet."""
    named = (meta.get("identity") or identity or {}).get("dimensions")
    dimensions: int | None = meta.get("dimensions") or named
    return dimensions
