"""Errors in a line or two: what was asked, what is true, what to do."""

from __future__ import annotations

import errno

from phi3_industry.errors import Phi3IndustryError

__all__ = ["explain"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def explain(error: BaseException) -> str:
    """Say in words what went wrong.

    Args:
        error: What was raised.
    """
    import sqlite3  # help is quick without it

    if isinstance(error, Phi3IndustryError):
        return str(error)
    if isinstance(error, MemoryError) or _says_out_of_memory(error):
        return (
            "Memory ran out. Use a smaller model, --quantization nf4, fewer passages (--top-k), or "
            "a machine with more; `phi3-industry doctor` lists what fits here."
        )
    if isinstance(error, OSError):
        return _explain_os_error(error)
    if isinstance(error, sqlite3.Error):
        return (
            f"The knowledge base's database cannot be used: {error}. Check with `phi3-industry "
            "doctor`; documents can always be indexed anew into another folder."
        )
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
        return str(error)
    text = " ".join(str(error).split())
    return (
        f"{type(error).__name__}: {text or 'no more is known'}. This was not foreseen, so it may "
        "be a fault of phi3-industry: run it again with --traceback to see where it happened."
    )


def _explain_os_error(error: OSError) -> str:
    if error.errno is None or not isinstance(error.strerror, str):
        return str(error)
    place = f"'{error.filename}'" if error.filename is not None else "the output"
    if error.errno in _FULL:
        return f"There is no room left to write {place}: {error.strerror}. Free some and try again."
    if error.errno in _FORBIDDEN:
        return (
            f"{place} may not be used: {error.strerror}. Check who owns it and its permissions, or "
            "name another place."
        )
    if error.errno == errno.ENOENT:
        return f"There is no {place}. Check the path; relative ones start in the working folder."
    if error.errno == errno.EISDIR:
        return f"{place} is a folder, and a file is needed. Name a file."
    if error.errno == errno.ENOTDIR:
        return f"{place} leads through a file as if it were a folder. Check the path."
    return f"{place}: {error.strerror}."


def _says_out_of_memory(error: BaseException) -> bool:
    """Tell torch's way of saying so, without importing torch."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )
