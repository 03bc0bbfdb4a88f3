"""HTML and SVG elements whose text is escaped because there is no other way to write it."""

from __future__ import annotations

import html
import re

__all__ = ["Markup", "element", "join"]

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_VOID = frozenset({"br", "img", "input", "meta"})


class Markup(str):
    """Text that is markup already, because :func:`element` made it."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | int | float | bool) -> Markup:
    """Make one element.

    Args:
        name: Its tag.
        *children: Its content: :class:`Markup` as it is, any other text escaped.
        **attributes: Its attributes; ``class_`` is ``class``, and an underscore inside is a
            hyphen. ``False`` leaves the attribute out, ``True`` gives it no value.

    Returns:
        The element.

    Raises:
        ValueError: A tag or attribute is no name.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' is no name of an element.")
    if name in _VOID and not children:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*parts: str) -> Markup:
    """Put pieces one after another: :class:`Markup` as it is, any other text escaped."""
    return Markup(
        "".join(part if isinstance(part, Markup) else html.escape(_visible(part)) for part in parts)
    )


def _attribute(key: str, value: str | int | float | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{key}' is no name of an attribute.")
    if value is False:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{html.escape(_visible(str(value)))}"'


def _visible(text: str) -> str:
    """Replace what HTML forbids: control characters and halves of surrogate pairs."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)
