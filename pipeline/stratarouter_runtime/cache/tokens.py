"""Cuts a text into tokens and folds what is written in several ways: phrases, numbers, units, dates, faults. Pure."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from stratarouter_runtime.cache import lexicon
from stratarouter_runtime.cache.phrases import folded
from stratarouter_runtime.cache.quantities import Token, value_of, with_numbers, with_units
from stratarouter_runtime.cache.words import denies

_MARKED = (*range(0x300, 0x3100), *range(0xA600, 0xAC00), 0xFB1E)
"""Where Unicode's first plane has marks on letters: what lies between are letters, 40,000 of them."""
_MARKS = "".join(mark for mark in map(chr, _MARKED) if unicodedata.category(mark) in ("Mn", "Mc"))
"""Vowel signs, accents and points on the letter before them: no letters to ``re``, and without them "दिन" was "दीन"."""
_TOKEN = re.compile(
    rf"""
      (?P<quote>`[^`\n]+`|"[^"\n]+"|“[^“”\n]+”|(?<!\w)'[^'\n]+'(?!\w))
    | (?P<name>https?://\S+|(?<![\w.+-])[\w.+-]{{1,64}}@[\w-]+\.\w[\w.]*|(?<![\w-])--?[A-Za-z][\w-]*
        |v?\d+(?:\.\d+){{2,}}|\d{{1,2}}:\d{{2}}(?::\d{{2}})?(?!\d)|[^\W_]+(?:(?:_+|::|\\)[^\W_]+)+|_+[^\W_]\w*
        |[A-Za-z]\w*(?:[./]\w+)+|[A-Za-z](?:\+\+|\#)|(?<!\w)\.[A-Za-z]\w+)
    | (?P<number>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?|(?<!\w)\.\d+|[¼-¾⅐-⅞])
    | (?P<unit>[$€£¥₹%]|°[CF]?)
    | (?P<exponent>[eE][-\u2212](?<=\d..)(?=\d))
    | (?P<word>[^\W\d_²³]+(?:[{_MARKS}]+[^\W\d_²³]*)*(?:['\u2019][^\W\d_]+)?|→)
    | (?P<sign>[-\u2010-\u2013\u2212\ufe63\uff0d](?=[$€£¥₹]?(?:\.?\d|[¼-¾⅐-⅞∞]))
        (?<![^\W_].)(?<![)\]%°'"].)(?<!\d[$€£¥₹].))
    | (?P<operator>==|!=|<=|>=|&&|\|\||[-+*/^=<>|\u00d7÷²³\u2212≤≥≠±√]
        |~(?=[\w(/$])(?<![\w~].)|&(?=[A-Za-z_])(?<![\w&].)
        |!(?<![\w!].)!*(?=[\w(])|!(?:(?<=[\d)]!)|(?<=(?<![\w.'\u2019-])[A-HJ-Za-z]!))!*(?!=))
    """,
    re.VERBOSE,
)
_SIGN = "(-)"
"""A minus that makes the number behind it negative, as no token is written."""
_WRITTEN = {"\u2212": "-", "≤": "<=", "≥": ">=", "≠": "!=", "→": "to"}
"""The plain form of signs."""
_OPENING_QUOTE = re.compile(r"(?<!\w)'")
_AFTER_WORDS = ").,;:!?"
"""What stands behind a word and is no token."""
_VERSION = re.compile(r"[vV]\d+(?:\.\d+)*")
_CONTRACTED = re.compile(r"'(?:s|d|re|ve|ll|m)$")
_SIGNS = {"plus": "+", "minus": "-", "times": "*", "equals": "="}
_WORK_FORMS = frozenset(
    {
        "work",
        "works",
        "working",
        "worked",
        "function",
        "functioning",
        "load",
        "loading",
        "respond",
        "accept",
        "accepted",
    }
)
SENTENCE = 3
"""Words from which a quotation is read as words."""
FAULT_REACH = 5
"""Words up to which a denial before "working" denies it."""
MAX_SUM = 20
"""Tokens up to which a text may be a sum in words."""
MAX_DAY = 31


def read_tokens(text: str) -> list[Token]:
    """The tokens of ``text``, folded."""
    return _with_faults(_with_signs(_negated(with_units(with_numbers(_without_in_front(folded(_tokens(text))))))))


def _tokens(text: str) -> list[Token]:
    if _may_quote(text):
        # A quotation may go over several words.
        return [token for match in _TOKEN.finditer(text) for token in _quoted_or_single(match)]
    tokens: list[Token] = []
    for chunk in text.split():
        # Most of a text is plain words, which need not be tried as anything else.
        core = chunk.lstrip("(").rstrip(_AFTER_WORDS)
        if core.isascii() and core.isalpha() and (len(core) > 1 or "!" not in chunk):
            tokens.append(Token("word", core, _plain(core)))
        else:
            tokens += [_token(match) for match in _TOKEN.finditer(chunk)]
    return tokens


def _may_quote(text: str) -> bool:
    return any(sign in text for sign in '`"“') or _OPENING_QUOTE.search(text) is not None


def quotations(text: str) -> list[str]:
    """Quoted strings and inline code of ``text``, without their marks."""
    return [match[0][1:-1] for match in _TOKEN.finditer(text) if match.lastgroup == "quote"] if _may_quote(text) else []


def _quoted_or_single(match: re.Match[str]) -> list[Token]:
    """The words of a quoted sentence, which reads the same without its marks; or the one token."""
    if match.lastgroup == "quote" and match[0][0] != "`" and len(match[0].split()) >= SENTENCE:
        return _tokens(match[0][1:-1])
    return [_token(match)]


def _token(match: re.Match[str]) -> Token:
    kind, text = match.lastgroup or "", match[0]
    if kind == "word":
        return Token("word", text, _plain(text))
    if kind == "sign":
        return Token("operator", _SIGN, _SIGN)
    if kind == "exponent":
        return Token("operator", "e-", "e-")
    if kind == "name" and _VERSION.fullmatch(text):
        text = text[1:]
        kind = "number" if text.count(".") < 2 else kind
    if kind == "number":
        return Token("number", text, "#", value_of(text))
    return Token(kind, text, _plain(text))


@lru_cache(maxsize=32_768)
def _plain(text: str) -> str:
    text = _WRITTEN.get(text, text)
    return _CONTRACTED.sub("", text.lower().replace("\u2019", "'"))


def _without_in_front(tokens: list[Token]) -> list[Token]:
    """Write "nut-free" as "without nut", so that both ways to say it are one."""
    for place in range(len(tokens) - 1, 1, -1):
        if tokens[place].plain == "free" and tokens[place - 1].text == "-" and tokens[place - 2].kind == "word":
            tokens[place - 2 : place + 1] = [Token("word", "without", "without"), tokens[place - 2]]
    return tokens


def _negated(tokens: list[Token]) -> list[Token]:
    """Takes each sign into the number behind it; one before another token ("-5:30", "-∞") stays."""
    signs: list[int] = []
    for place, token in enumerate(tokens):
        if token.value is not None and place and tokens[place - 1].text == _SIGN:
            token.value = -token.value
            signs.append(place - 1)
    for place in reversed(signs):
        del tokens[place]
    return tokens


def _with_signs(tokens: list[Token]) -> list[Token]:
    """Write "two plus two" as "2 + 2", and "May 3" as "3 May"."""
    # In prose "plus" only goes on.
    for place in range(1, len(tokens) - 1 if len(tokens) <= MAX_SUM else 0):
        before, token, after = tokens[place - 1 : place + 2]
        if token.plain in _SIGNS and before.value is not None and after.value is not None:
            tokens[place] = Token("operator", _SIGNS[token.plain], _SIGNS[token.plain])
    for place in range(1, len(tokens)):
        token = tokens[place]
        if token.value is None:
            continue
        before = tokens[place - 1]
        is_day = isinstance(token.value, int) and 0 <= token.value <= MAX_DAY and not token.unit
        if is_day and before.plain in lexicon.MONTHS and (place < 2 or tokens[place - 2].value is None):
            tokens[place - 1 : place + 1] = [token, before]
    return tokens


def _with_faults(tokens: list[Token]) -> list[Token]:
    """Words that say something does not work become one that says it is broken: they deny nothing that was asked.

    "It does not work", "why isn't my card working".
    """
    result: list[Token] = []
    for token in tokens:
        if token.plain in _WORK_FORMS:
            near = range(len(result) - 1, max(len(result) - 1 - FAULT_REACH, -1), -1)
            denial = next((place for place in near if denies(result[place].plain)), None)
            if denial is not None:
                del result[denial]
                result.append(Token("word", token.text, "broken"))
                continue
        result.append(token)
    return result
