"""What a provider can be asked for, by name: each adapter says of every one whether its wire shape carries it."""

from __future__ import annotations

FEATURES = (
    "system prompt",
    "multi-turn messages",
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "seed",
    "frequency_penalty, presence_penalty",
    "JSON mode",
    "JSON schema",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "images by URL",
    "images in base64",
    "reasoning_effort",
    "streaming",
    "several prompts in one call",
    "cached tokens in usage",
    "reasoning tokens in usage",
)
"""The rows of the table of providers. An adapter's ``SUPPORT`` maps each to ``yes``, to ``error`` (asking for it is an
UnsupportedParameterError), to ``no`` (nobody can ask for it: it is just not there) or to a note that begins with
``yes,`` (and says what is different)."""
