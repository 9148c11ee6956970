"""Which path of the simulated provider leads to which wire shape."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

from stratarouter_runtime.testing.simulator_anthropic import MESSAGES
from stratarouter_runtime.testing.simulator_anthropic import PATH as MESSAGES_PATH
from stratarouter_runtime.testing.simulator_chat import CHAT
from stratarouter_runtime.testing.simulator_completions import COMPLETIONS
from stratarouter_runtime.testing.simulator_completions import PATH as COMPLETIONS_PATH
from stratarouter_runtime.testing.simulator_endpoints import EMBEDDINGS, Endpoint
from stratarouter_runtime.testing.simulator_google import GOOGLE
from stratarouter_runtime.testing.simulator_responses import PATH as RESPONSES_PATH
from stratarouter_runtime.testing.simulator_responses import RESPONSES

ENDPOINTS: dict[str, Endpoint] = {
    "/v1/chat/completions": CHAT,
    "/v1/embeddings": EMBEDDINGS,
    COMPLETIONS_PATH: COMPLETIONS,
    RESPONSES_PATH: RESPONSES,
    MESSAGES_PATH: MESSAGES,
    **GOOGLE,
}
"""A row for each path that takes a POST. ``{name}`` stands for one or more characters other than ``/`` and ``:``;
the shape finds them, decoded, in the body under that name, and the query's parameters as well."""


def _pattern(template: str) -> re.Pattern[str]:
    fixed_and_names = re.split(r"\{(\w+)\}", template)
    parts = [f"(?P<{part}>[^/:]+)" if index % 2 else re.escape(part) for index, part in enumerate(fixed_and_names)]
    return re.compile("".join(parts))


_PATTERNS = [(_pattern(template), endpoint) for template, endpoint in ENDPOINTS.items() if "{" in template]


def find_endpoint(method: str, path: str, query: str = "") -> tuple[Endpoint, dict[str, str]] | None:
    """The shape that answers ``path``, and what a path with braces and its query say; None for no such page."""
    if method != "POST":
        return None
    exact = ENDPOINTS.get(path)
    if exact is not None:
        return exact, {}
    for pattern, endpoint in _PATTERNS:
        if found := pattern.fullmatch(path):
            named = {name: unquote(value) for name, value in found.groupdict().items()}
            return endpoint, dict(parse_qsl(query)) | named
    return None
