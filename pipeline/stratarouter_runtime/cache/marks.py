"""What is read by its characters, not its words. Pure.

Emoticons, single letters that are names ("plan A", "from a to b"), and scripts that write no blanks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from stratarouter_runtime.cache.quantities import Token

_EMOTICON = re.compile(r"(?<!\S)(?:[:;=]['’]?-?[()\[\]DPpOo|\\/]+|</?3|[xX]D+)(?=[.,!?]*(?:\s|$))")  # noqa: RUF001
_NOSE = re.compile(r"['’-]")  # noqa: RUF001 - the typographic apostrophe is meant
_SMILES = frozenset({":)", ";)", "=)", ":]", "=]", ":D", ";D", "=D", ":P", ":p", ";P", ";p", "xD", "XD", "<3"})
_AT_THE_END = re.compile(r"[\s.,!?]*")
_CAPITAL = re.compile(r"(?<=[a-z] )A(?= [a-z])")
"""No sentence begins there, and in a heading the next word has a capital too."""
_BEHIND_NAMES = frozenset(
    {"to", "from", "into", "than", "in", "over", "under", "by", "against", "of", "for", "with", "on", "at", "via"}
    | {"and", "or", "but", "versus", "vs", "is", "are", "was", "has", "have", "does", "can", "will", "if", "when"}
    | {"plus", "minus", "times", "equals", "before", "after", "about"}
)
"""No article stands before them."""

_UNSPACED = re.compile(
    "["
    "\u0e00-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9df\uaa60-\uaa7f"  # Thai to Javanese
    "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff\uffa0-\uffdc"  # Hangul
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u303b\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"  # kana
    "\u31f0-\u31ff\uff66-\uff9f\U0001aff0-\U0001b16f"
    "\u2e80-\u2fdf\u3100-\u312f\u31a0-\u31bf\u3400-\u4dbf\u4e00-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff"  # Han, Yi
    "]+"
)


def unspaced(text: str) -> str:
    """The characters of ``text`` in scripts that write words without blanks between them, or inflect whole phrases, in
    their order. No word of them can be told from another, so any that differ may be what is asked.
    """
    return "" if text.isascii() else "".join(_UNSPACED.findall(text))


def emoticons(text: str) -> list[str]:
    """The emoticons of ``text`` without noses and tears; a smile at its end, which is said to be kind, is left out."""
    found = []
    for match in _EMOTICON.finditer(text) if _may_smile(text) else ():
        face = _NOSE.sub("", match[0])
        if face not in _SMILES or _AT_THE_END.fullmatch(text, match.end()) is None:
            found.append(face)
    return found


def without_emoticons(text: str) -> str:
    """What is said in words: the "D" of a laugh is none."""
    return _EMOTICON.sub(" ", text) if _may_smile(text) else text


def _may_smile(text: str) -> bool:
    return any(sign in text for sign in ":;=<D")


def letters(text: str, tokens: Sequence[Token]) -> tuple[str, ...]:
    """The single letters that are names, in their order and in lower case. "I" is none, and "a" where it may be the
    article.
    """
    return tuple(_letters(tokens, is_capital=_CAPITAL.search(text) is not None))


def _letters(tokens: Sequence[Token], *, is_capital: bool) -> Iterator[str]:
    for place, token in enumerate(tokens):
        letter = token.plain
        if token.kind != "word" or len(letter) > 1 or letter == "i":
            continue
        behind = tokens[place + 1] if place + 1 < len(tokens) else None
        may_be_article = behind is not None and behind.kind != "operator" and behind.plain not in _BEHIND_NAMES
        is_operand = place > 0 and tokens[place - 1].kind == "operator"
        if letter != "a" or not may_be_article or is_operand or (is_capital and token.text == "A" and place > 0):
            yield letter  # else it is the article
