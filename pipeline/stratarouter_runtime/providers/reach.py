"""Asks a provider whether it is there and takes the key, without paying: its list of models is free everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import httpx
from pydantic import SecretStr

TIMEOUT_S = 10.0

_HEADERS: dict[str, Callable[[str], dict[str, str]]] = {
    "anthropic": lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01"},
    "google": lambda key: {"x-goog-api-key": key},
}


class Reached(NamedTuple):
    """``status`` None: no answer, ``said`` tells why. ``date``: the Date header, or empty."""

    status: int | None
    said: str
    date: str = ""

    @property
    def key_refused(self) -> bool:
        """Whether the provider answered that it does not take the key."""
        return self.status in {401, 403}


async def reach(kind: str, base_url: str, key: SecretStr | None) -> Reached:
    """GET ``/models`` of the provider. Raises nothing: what went wrong is what is asked for."""
    secret = "" if key is None else key.get_secret_value()
    headers = _HEADERS.get(kind, _bearer)(secret) if secret else {}
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            reply = await client.get(f"{base_url.rstrip('/')}/models", headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
        # The type alone: a message may quote the URL with what stands in it.
        return Reached(None, type(exc).__name__)
    return Reached(reply.status_code, reply.reason_phrase, reply.headers.get("date", ""))


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}
