"""Addresses of vector stores as texts: what is secret in them, and which lie on this disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

__all__ = [
    "holds_password",
    "holds_secret",
    "local_folder",
    "masked",
    "moved",
    "without_secrets",
]

# up to the last @, since a password that was not written with % may hold anything
_PASSWORD = re.compile(r"(?<=//)([^:/?@]*):(.*)@", re.DOTALL)
_SECRET_OPTION = re.compile(r"(?i)([?&][^=&]*(?:pass|pwd|key|token|secret)[^=&]*=)([^&]+)")
_LOCAL = re.compile(r"(?P<scheme>qdrant|chroma):(?://)?(?P<folder>[^?#]+)(?P<options>.*)")


def masked(address: str) -> str:
    """Write an address without its secrets.

    >>> masked("postgresql://me:secret@db/kb?table=kb")
    'postgresql://me:***@db/kb?table=kb'
    """
    return _SECRET_OPTION.sub(r"\1***", _PASSWORD.sub(r"\1:***@", address))


def holds_secret(address: str) -> bool:
    """Tell whether an address holds a password or a key."""
    return masked(address) != address


def holds_password(address: str) -> bool:
    """Tell whether an address means to hold a password before its host, however it is written."""
    return _PASSWORD.search(address) is not None


def without_secrets(text: str, address: str) -> str:
    """Write what somebody said of an address without the secrets that the address holds."""
    text = text.replace(address, masked(address))
    found = [*_PASSWORD.finditer(address), *_SECRET_OPTION.finditer(address)]
    secrets = {form for one in found for form in (one.group(2), unquote(one.group(2))) if form}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def local_folder(address: str) -> str | None:
    """Return the folder that an address names; ``None`` if it names a server or says nothing."""
    found = _LOCAL.fullmatch(address)
    return found and found["folder"]


def moved(address: str, place: Callable[[str], str]) -> str:
    """Write an address with its folder, if it names one, where a function puts it.

    >>> moved("qdrant:store?collection=kb", lambda folder: f"/plant/{folder}")
    'qdrant:/plant/store?collection=kb'
    """
    found = _LOCAL.fullmatch(address)
    if found is None:
        return address
    return f"{found['scheme']}:{place(found['folder'])}{found['options']}"
