"""Who may see and who may change what. Pure."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from stratarouter_runtime.telemetry.http import HttpRequest

LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))

Need = Literal["read", "texts", "change"]
"""``texts`` are what people asked and were answered; ``change`` sends something or takes something away."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not: an HTTP status and what to do."""

    status: int
    message: str


class Access:
    """Reading is open where only this machine can ask; everything else needs the token.

    Args:
        host: the address the server is bound to.
        token: ``console_token``; None: nothing that needs it can be done.
    """

    def __init__(self, host: str, token: SecretStr | None) -> None:
        self._open = host in LOOPBACK
        # An empty one would be everybody's.
        self._token = None if token is None else token.get_secret_value().encode() or None

    @property
    def reading_is_open(self) -> bool:
        """Whether reading needs no token."""
        return self._open

    @property
    def has_token(self) -> bool:
        """Whether there is a token at all."""
        return self._token is not None

    def refuses(self, request: HttpRequest, need: Need) -> Refusal | None:
        """None where ``request`` may do what needs ``need``."""
        if self._open and _host(request) not in LOOPBACK:
            # A page from elsewhere whose name was pointed at this machine must not read it.
            return Refusal(403, "this console is bound to loopback: ask for it as localhost or 127.0.0.1")
        if need == "read" and self._open:
            return None
        if self._token is None:
            return Refusal(403, "this needs a token, and none is set: set STRATAROUTER_CONSOLE_TOKEN")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token):
            return None
        return Refusal(401, "this needs the console's token, as Authorization: Bearer ...")


def _host(request: HttpRequest) -> str:
    """The host that the client believes it talks to, without its port."""
    host = request.headers.get("host", "")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
