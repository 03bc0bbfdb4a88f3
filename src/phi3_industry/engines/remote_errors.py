"""What goes wrong between here and a server, as this library's errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import openai

from phi3_industry.errors import (
    ConfigurationError,
    EngineError,
    EngineOverloadedError,
    RequestTimeoutError,
)

__all__ = ["translated"]


@contextmanager
def translated(server: str, *, timed_out: Callable[[], RequestTimeoutError]) -> Iterator[None]:
    """Raise this library's errors in place of those of the client.

    Args:
        server: Address of the server.
        timed_out: Makes the error for a server that says nothing for too long.

    Raises:
        RequestTimeoutError: The server was silent for too long.
        EngineOverloadedError: The server has too many requests (429).
        ConfigurationError: It refuses the key.
        EngineError: It cannot be reached, breaks off, or refuses the request.
    """
    try:
        yield
    except (openai.APITimeoutError, httpx.TimeoutException) as error:
        raise timed_out() from error
    except (openai.APIConnectionError, httpx.TransportError) as error:
        cause = error.__cause__ or error
        raise EngineError(
            f"The connection to the server {server} failed: {cause or type(cause).__name__}. "
            "Start the server, or correct base_url."
        ) from error
    except openai.RateLimitError as error:
        raise EngineOverloadedError(server=server) from error
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise ConfigurationError(
            f"The server {server} refuses the API key: {error.message}. Set the environment "
            "variable that api_key_env names."
        ) from error
    except openai.APIStatusError as error:
        advice = ""
        if error.status_code in (400, 422) and "prompt" in error.message:
            advice = " If it takes prompts as texts alone, set server='openai-text'."
        raise EngineError(
            f"The server {server} refused the request ({error.status_code}): {error.message}"
            f"{advice}"
        ) from error
    except json.JSONDecodeError as error:
        raise EngineError(
            f"The server {server} sent what cannot be read ({error}). Ask again; if it happens "
            "again, look into the server's log."
        ) from error
    except openai.APIError as error:
        raise EngineError(f"The server {server} failed: {error.message}") from error
