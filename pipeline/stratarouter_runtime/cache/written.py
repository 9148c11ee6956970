"""What both texts must have as it is written: brackets and signs, code and its layout, letters whose case tells, words
in capitals, and what is given to be translated. Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from stratarouter_runtime.cache.cases import (
    CASE_MATTERS,
    LONE,
    MEANING_IN_CAPITALS,
    OTHER_WORDS,
    is_of_encodings,
    is_of_letters,
)
from stratarouter_runtime.cache.lexicon import words_in
from stratarouter_runtime.cache.normalise import folded_text
from stratarouter_runtime.cache.quantities import Token
from stratarouter_runtime.cache.tokens import quotations
from stratarouter_runtime.cache.words import is_filler
from stratarouter_runtime.plain import cached_property

_FENCED = re.compile(r"```(.*?)```|~~~(.*?)~~~", re.DOTALL)
_WRITTEN = re.compile(
    r"""
      (?P<address>https?://\S+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]+\.\w[\w.]*|\d{1,2}:\d{2}(?!\d))
    | (?P<word>\w+)
    | (?P<escape>\\\S?)
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<path>(?<!\S)(?:~|\.\.?)/|'(?=\())
    | (?P<operator>[+*^=<>|\u00d7÷]|(?<![^\W\d_])[-/\u2212]|[-/\u2212](?![^\W\d_]))
    | (?P<sign>@|\?(?=\.\w|\[|:)|(?<=[(\[])\?|::|(?<=\[):(?=\S)|(?<=\S):(?=\])|(?<=\d):(?=\d))
    | (?P<loose>[?:;](?=[^\s?!.,)"'”\]])|(?<!\w)\#(?!\d)|\$(?!\d)|(?<!\S)(?:[:;&]|\?\?(?=\s+\w))(?!\S))
    | (?P<comma>[,:;])
    """,
    re.VERBOSE,
)
_PLURALS = frozenset({"s", "es", "ies"})
"""In brackets behind a word they only leave its number open: "file(s)"."""
_LOGIC = frozenset({"and", "or", "not"})
_KEYWORDS = _LOGIC.union(words_in("in as if is by on for with between like from to into while then else do any all"))
"""In capitals they are names of functions and key words more often than loud."""
_SPACES_A_TAB = 8
_TELLING_WORDS = re.compile(rf"\b(?:{'|'.join(OTHER_WORDS)})\b", re.IGNORECASE)
_TELLING_UNITS = re.compile(rf"(?<![^\W\d_])(?:{'|'.join(MEANING_IN_CAPITALS - set(OTHER_WORDS))})(?![^\W_])")
_CODE = re.compile(r"`([^`\n]+)`")
_PRONOUN = frozenset("iI")
_NO_LETTERS = re.compile(r"[\W_]+")
_TITLED = re.compile(r"(?<![^\W_])[A-Z][a-z]+(?![^\W_])")
_WORD = re.compile(r"[^\s\"'“”(),;`]+")
_MAY_MATTER = re.compile(r"[/~\\_\d=-]|[a-z][A-Z]")
_CAMEL = re.compile(r"[A-Z][a-z]+[A-Z]")
_END_MARKS = " .?!"
_SENTENCE = 3
_NOTHING: Counter[str] = Counter()
"""Of most texts; one for all of them."""
_AFTER_WORDS = ".,;:!?"
MAX_ORDER = 120
"""Characters up to which what stands before a colon is an order."""
_ORDER = re.compile(
    r"\b(?:translat|correct|proofread|re-?writ|re-?phras|paraphras|summari|conjugat|pronounc|transcrib|spell|say\b)",
    re.IGNORECASE,
)
_QUOTING = "\"'“”‘’` "  # noqa: RUF001 - typographic quotation marks


class Written:
    """One text as it is written; each is read when it is first asked for.

    Args:
        text: one turn's, without emoticons.
        tokens: its tokens.
    """

    def __init__(self, text: str, tokens: Sequence[Token]) -> None:
        self._text = text
        self._tokens = tokens

    @cached_property
    def folded(self) -> str:
        """As exact matching reads it."""
        return folded_text(self._text)

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Fenced code, without blanks at the ends of its lines."""
        if "```" not in self._text and "~~~" not in self._text:
            return ()
        codes = (match[1] or match[2] or "" for match in _FENCED.finditer(self._text))
        return tuple("\n".join(line.rstrip() for line in code.strip("\n").split("\n")) for code in codes)

    @cached_property
    def layout(self) -> tuple[int, ...]:
        """How far each line is indented, from the first on that is."""
        if "\n" not in self._text:
            return ()
        lines = [line.expandtabs(_SPACES_A_TAB) for line in self._unfenced.split("\n") if line.strip()]
        indents = [len(line) - len(line.lstrip()) for line in lines]
        first = next((place for place, indent in enumerate(indents) if indent), len(indents))
        return tuple(indents[first:])

    @cached_property
    def formal(self) -> tuple[str, ...]:
        """Brackets and signs of code and formulas in their order, brackets with the words that they enclose: prose in
        brackets reads the same without them.
        """
        return self._marks[0]

    @cached_property
    def places(self) -> tuple[tuple[int, str], ...]:
        """The same and further signs, each with how many words stand before it."""
        return self._marks[1]

    @cached_property
    def asides(self) -> tuple[tuple[int, str], ...]:
        """Brackets around prose, likewise."""
        return self._marks[2]

    @cached_property
    def cased(self) -> Counter[str]:
        """The words whose case tells: "WHO", "-R", "/Tmp"; and those that would be one of them ("who")."""
        words = list(_cased(self._unfenced))
        return Counter(words) if words else _NOTHING

    @cached_property
    def said(self) -> frozenset[str]:
        """All words in plain form."""
        return frozenset(token.plain for token in self._tokens if token.kind == "word")

    @cached_property
    def stressed(self) -> frozenset[str]:
        """Little words in capitals, in plain form: "the AND function"; none where all is in capitals."""
        loud = [t for t in self._tokens if t.kind == "word" and len(t.text) > 1 and t.text.isupper()]
        if not loud or _is_loud(self._text):
            return frozenset()
        return frozenset(token.plain for token in loud if is_filler(token.plain))

    @cached_property
    def keywords(self) -> frozenset[str]:
        """Those of them that are names rather than loud."""
        return self.stressed & _KEYWORDS

    @cached_property
    def material(self) -> str:
        """What follows an order to work on words, as exact matching reads it: "Translate to German: ..."."""
        order, colon, given = self._text.partition(":")
        if not colon or len(order) > MAX_ORDER or _ORDER.search(order) is None:
            return ""
        return folded_text(given.strip(_QUOTING).rstrip(_AFTER_WORDS).strip(_QUOTING))

    @cached_property
    def quotes(self) -> frozenset[str]:
        """Quoted strings and inline code, as they stand."""
        return frozenset(quotations(self._text))

    @cached_property
    def quotes_by_letters(self) -> dict[str, set[str]]:
        """What must be the same of each (``quoted``), by its letters in lower case."""
        found: dict[str, set[str]] = {}
        for text in self.quotes:
            found.setdefault(unquoted(text).lower(), set()).add(quoted(text))
        return found

    @cached_property
    def codes(self) -> frozenset[str]:
        """Inline code."""
        return frozenset(_CODE.findall(self._text)) if "`" in self._text else frozenset()

    @cached_property
    def code_letters(self) -> frozenset[str]:
        """Its letters in lower case."""
        return frozenset(unquoted(code).lower() for code in self.codes)

    @cached_property
    def run(self) -> str:
        """Its letters and digits in a row, as ``unquoted`` reads them."""
        return unquoted(self._text)

    @cached_property
    def _unfenced(self) -> str:
        return _FENCED.sub(" ", self._text) if self.blocks else self._text

    @cached_property
    def _marks(self) -> tuple[tuple[str, ...], tuple[tuple[int, str], ...], tuple[tuple[int, str], ...]]:
        text = self._unfenced.rstrip(_END_MARKS)
        if not _HAS_MARKS.search(text):
            return (), (), ()
        reader = _Reader(text)
        return reader.formal(), reader.places(), reader.asides()


def unquoted(text: str) -> str:
    """The letters and digits of ``text`` as they are written, but for the capital that begins a word."""
    return _NO_LETTERS.sub("", _TITLED.sub(lambda word: word[0].lower(), text))


def quoted(text: str) -> str:
    """What of a quotation must be the same: in a sentence as much as where nothing is quoted."""
    return unquoted(text) if len(text.split()) >= _SENTENCE else _NO_LETTERS.sub("", text)


_HAS_MARKS = re.compile(r"[(){}\[\]\\@?:;#$&]|[.~]/")


class _Group:
    """A bracket that is open: where it stands, and what was read until then."""

    def __init__(self, mark: int, before: str, words: int, counts: tuple[int, int]) -> None:
        self.mark = mark
        self.before = before
        self.words = words
        self.counts = counts


class _Reader:
    """Reads the marks of a text in one pass."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words: list[str] = []
        self._marks: list[tuple[int, str, str]] = []  # words before it, itself, and how it counts
        self._open: list[_Group] = []
        self._long_words = self._signs = 0
        for match in _WRITTEN.finditer(text):
            self._take(match.lastgroup or "", match)

    def formal(self) -> tuple[str, ...]:
        """See ``Written.formal``."""
        return tuple(self._with_words(at, mark) for at, mark, kind in self._marks if kind == "formal")

    def places(self) -> tuple[tuple[int, str], ...]:
        """See ``Written.places``. What stands behind the last word ends a sentence."""
        last = len(self._words)
        marks = [(at, mark) for at, mark, kind in self._marks if kind == "formal" or (kind == "loose" and at < last)]
        return tuple(marks)

    def asides(self) -> tuple[tuple[int, str], ...]:
        """See ``Written.asides``."""
        return tuple((at, mark) for at, mark, kind in self._marks if kind == "aside")

    def _with_words(self, at: int, mark: str) -> str:
        if mark in _OPENING:
            return mark + (self._words[at] if at < len(self._words) else "")
        return (self._words[at - 1] if at else "") + mark if mark in _CLOSING else mark

    def _take(self, kind: str, match: re.Match[str]) -> None:
        text = match[0]
        if kind in {"word", "address"}:
            self._words.append(text.lower())
            self._long_words += len(text) > 1 and not text.isdecimal() and text.lower() not in _LOGIC
            self._signs += text.lower() in _LOGIC
        elif kind == "open":
            self._open.append(_Group(len(self._marks), self._before(match.start()), len(self._words), self._counts()))
            self._marks.append((len(self._words), text, "aside" if text == "(" else "formal"))
        elif kind == "close":
            self._close(text, match)
        elif kind == "operator":
            self._signs += 1
        else:
            self._mark(kind, text)

    def _mark(self, kind: str, text: str) -> None:
        self._signs += text == ","
        if kind in {"comma", "loose"}:
            within = self._open and self._marks[self._open[-1].mark][1] != "("
            if kind == "comma" and not within:
                return
            kind = "formal" if within else "loose"
        self._marks.append((len(self._words), text, "loose" if kind == "loose" else "formal"))

    def _close(self, text: str, match: re.Match[str]) -> None:
        group = self._open.pop() if self._open else None
        if group is None:
            # It numbers a list: "a) tea".
            self._marks.append((len(self._words), text, "loose" if text == ")" else "formal"))
            return
        at, opening, kind = self._marks[group.mark]
        matched = _OPENING[opening] == text
        formal = kind == "formal" or not matched or self._is_formal(group, match.end())
        self._marks[group.mark] = at, opening, "formal" if formal else "aside"
        self._marks.append((len(self._words), text, "formal" if formal else "aside"))

    def _is_formal(self, group: _Group, end: int) -> bool:
        """Whether round brackets belong to a formula or a call."""
        inside = self._words[group.words : group.words + 2]
        if not inside or (len(inside) == 1 and inside[0] in _PLURALS):
            return False
        if group.before in _AROUND or self._after(end) in _AROUND:
            return True
        # "f(x, y)": the bracket stands right at a name. "Sin(x)" may be said as "the sine of x".
        if len(inside) > 1 and group.before and (group.before.isalnum() or group.before in "_])"):
            return True
        long_words, signs = (now - then for now, then in zip(self._counts(), group.counts, strict=True))
        return signs > 0 and not long_words

    def _counts(self) -> tuple[int, int]:
        return self._long_words, self._signs

    def _before(self, start: int) -> str:
        """The character right before ``start``, or before blanks an operator."""
        if start and not self._text[start - 1].isspace():
            return self._text[start - 1]
        left = self._text[max(start - _NEAR, 0) : start].rstrip()
        return left[-1] if left and left[-1] in _AROUND else ""

    def _after(self, end: int) -> str:
        return self._text[end : end + _NEAR].lstrip()[:1]


_OPENING = {"(": ")", "[": "]", "{": "}"}
_CLOSING = frozenset(_OPENING.values())
_AROUND = frozenset("+*/^=<>|\u00d7÷")
"""Beside round brackets they make a formula."""
_NEAR = 3


def _is_loud(text: str) -> bool:
    """Whether capitals say nothing, because all is written in them."""
    return text.isupper() and len(text.split()) >= _SENTENCE


def _cased(text: str) -> Iterator[str]:
    loud = _is_loud(text)
    for match in _TELLING_WORDS.finditer(text):
        yield match[0] if match[0] in MEANING_IN_CAPITALS and not loud else match[0].lower()
    for match in _TELLING_UNITS.finditer(text):
        yield match[0].replace("kB", "KB")
    if is_of_encodings(text.lower()):
        # But for the capital that begins a text.
        yield from (word[0].rstrip(_AFTER_WORDS) for word in _WORD.finditer(text[:1].lower() + text[1:]))
    elif _MAY_MATTER.search(text) is not None:
        for match in _WORD.finditer(text):
            if CASE_MATTERS.match(match[0]) or _CAMEL.match(match[0]):
                yield match[0].rstrip(_AFTER_WORDS)
    letters = [letter for letter in LONE.findall(text) if letter not in _PRONOUN]
    if letters and is_of_letters(text):
        yield from letters
        # Of one that is there in both cases which comes where: "x = 5, X = ?".
        for small in set(letters) & {letter.lower() for letter in letters if letter.isupper()}:
            yield "".join(letter for letter in letters if letter.lower() == small)
