"""About how many tokens a text has, where nobody has counted them."""

from __future__ import annotations

from stratarouter_runtime.records import Execution

CHARACTERS_PER_TOKEN = 4
"""The usual rule of thumb for English."""


def guessed_input(execution: Execution) -> int:
    """Of what is asked, with the route's system prompt."""
    asked = len(execution.system_prompt or "")
    for message in execution.request.messages:
        content = message.get("content")
        asked += len(content) if isinstance(content, str) else len(str(content or ""))
    return asked // CHARACTERS_PER_TOKEN


def guessed(text: str) -> int:
    """Of a text; one at least."""
    return max(1, len(text) // CHARACTERS_PER_TOKEN)
