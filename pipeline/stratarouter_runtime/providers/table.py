"""The table of what each provider carries, out of what its adapter says of itself."""

from __future__ import annotations

from collections.abc import Mapping

from stratarouter_runtime.providers import anthropic, google, openai, openai_completions, openai_responses
from stratarouter_runtime.providers.features import FEATURES

BEGIN = "<!-- providers: written by make docs -->"
END = "<!-- end of providers -->"
TABLES: Mapping[str, Mapping[str, str]] = {
    "`openai`": openai.SUPPORT,
    "`openai-responses`": openai_responses.SUPPORT,
    "`openai-completions`": openai_completions.SUPPORT,
    "`anthropic`": anthropic.SUPPORT,
    "`google`": google.SUPPORT,
}
"""By the kind that a route table names."""


def markdown() -> str:
    """One row for each feature; what is not plainly yes, no or an error is a numbered note below."""
    notes: list[str] = []
    rows = [
        f"| {feature} | {' | '.join(_cell(table[feature], notes) for table in TABLES.values())} |"
        for feature in FEATURES
    ]
    head = [f"| | {' | '.join(TABLES)} |", f"|---|{'---|' * len(TABLES)}"]
    said = [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join([*head, *rows, "", *said])


def _cell(says: str, notes: list[str]) -> str:
    if says in {"yes", "no", "error"}:
        return says
    note = says.removeprefix("yes, ")
    if note not in notes:
        notes.append(note)
    return f"yes ({notes.index(note) + 1})"


def into(page: str) -> str:
    """``page`` with the table between its marks. Raises ValueError where they are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{markdown()}\n\n{END}{after}"
