"""When two conversations count as the same words: what exact matching hashes, and the text that the guard reads.

Conservative: a form is folded only where no reader would want another answer for it. Folded are Unicode's
compatibility forms, case, runs of white space and the full stop or question mark at a message's end. Kept are

- code (fences and backticks) and quoted strings, character for character;
- superscripts, subscripts, fractions and circled digits, which plain NFKC would turn into other numbers (10² into 102);
- the case of paths, flags, mixed identifiers, and of words that mean something else in capitals (US, WHO, Mb, Polish),
  of lone letters where a text is about letters or a formula, of all where it is about their encoding (``cases``);
- the lines of a message that has indented lines, because there the layout may be code.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, wraps
from hashlib import blake2b
from typing import Any

from stratarouter_runtime.cache.cases import CASE_MATTERS, LONE, MEANING_IN_CAPITALS, is_of_encodings, is_of_letters

Fold = Callable[[str], str]

TURN = "\x1e"
"""Begins a turn. Taken out of every content, so no message can forge a turn."""
ROLE_END = "\x1f"
"""Ends a turn's role; taken out of contents likewise."""
PART = "\x1d"
"""Begins the digest of a part that is no text (an image, a tool call); taken out of contents likewise."""

DIGEST_BYTES = 16
"""128 bits: no accidental collision below 2^60 entries, and half the key bytes of SHA-256 in Redis."""

KEPT_TEXTS = 2_048
"""How many texts are kept in their folded forms, so that a question that comes again is not read again."""
KEPT_CHARS = 1_000
"""Longer texts are folded each time: so the kept ones take a few MB at most."""
KEPT_LONG = 8
"""Longer texts whose white space was folded last: a request asks for it more than once."""
KEPT_WORDS, KEPT_WORD_CHARS = 4_096, 32
"""Likewise of words with a capital, which are few and come again."""

_SEPARATORS = str.maketrans(dict.fromkeys("\x1c\x1d\x1e\x1f", " "))
_PROTECTED = re.compile(r"(```.*?```|~~~.*?~~~|`[^`\n]+`|\"[^\"\n]+\"|“[^“”\n]+”|(?<!\w)'[^'\n]+'(?!\w))", re.DOTALL)
_LINE_BREAKS = re.compile(r"\r\n?|\u2028|\u2029|\x85|\x0b|\x0c")
_INDENTED = re.compile(r"\n(?: {2,}|\t)\S")
_INNER_BLANKS = re.compile(r"(?<=\S)[^\S\n]+")
# Linear in the text: the quantified classes share no character with what follows them.
_END_MARKS = re.compile(r"(?:(?<=[^\W\d_]{2})[!…！]+|(?<=[\w)\]}'\"%`])[.?。？][.?!。？]*)\Z")  # noqa: RUF001 - full-width
_MARKS = ".?!…。？！"  # noqa: RUF001 - every character that _END_MARKS can end with
_LINE_END_BLANKS = re.compile(r" \n")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_USUAL_ROLES = ("user", "system", "assistant", "tool")
_ROLE_AND_CONTENT = {"role", "content"}
_WORD = re.compile(r"[^\s\"'“”(),;]+")
_CAPITAL, _BREAK = b"A", b" "
_CLASSES = bytes(ord("A") if 65 <= at <= 90 else ord(" ") if not _WORD.match(chr(at)) else 0 for at in range(256))
"""Of ASCII: a capital, what ends a word, anything else."""
_LETTERS = re.compile(r"[^\W\d_]+")
_ARTICLE = re.compile(r"A\s+[^\W\d_]{2}")
_KEPT_COMPATIBILITY = ("<super>", "<sub>", "<fraction>", "<circle>")


def content_key(scope: str, messages: Sequence[Mapping[str, Any]]) -> str:
    """The exact-match key: hex of BLAKE2b-128 over ``scope`` and the normalised ``messages``."""
    within = scope.encode("utf-8", "surrogatepass")
    words = normalise_messages(messages).encode("utf-8", "surrogatepass")
    # The length before each part: no scope can pass for another scope with a longer text.
    parts = b"".join((len(within).to_bytes(8, "big"), within, len(words).to_bytes(8, "big"), words))
    return blake2b(parts, digest_size=DIGEST_BYTES).hexdigest()


def normalise_messages(messages: Sequence[Mapping[str, Any]]) -> str:
    """All turns with their roles, folded as the module says. Equal results mean: the same words were asked."""
    if len(messages) == 1:
        return f"{TURN}{_role(messages[0])}{ROLE_END}{_content(messages[0], _folded)}"
    return "".join(f"{TURN}{_role(message)}{ROLE_END}{_content(message, _folded)}" for message in messages)


def conversation_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """The conversation for the guard and the embedder: original case, white space folded.

    A lone user message is its plain text; several turns carry their roles between separators.
    """
    if len(messages) == 1 and _role(messages[0]) == "user":
        return _content(messages[0], _spaced)
    return "".join(f"{TURN}{_role(message)}{ROLE_END}{_content(message, _spaced)}" for message in messages)


def folded_text(text: str) -> str:
    """What of one message's text decides whether it is the same words."""
    return _folded(text)


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role", "")
    return role if role in _USUAL_ROLES else str(role).translate(_SEPARATORS).strip()


def _content(message: Mapping[str, Any], fold: Callable[[str], str]) -> str:
    if message.keys() == _ROLE_AND_CONTENT and isinstance(message["content"], str):
        return fold(message["content"])  # nothing but text: most messages
    parts = [fold(part) for part in _texts(message.get("content"))]
    return "\n".join(parts) + "".join(f"{PART}{digest}" for digest in _digests(message))


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, (list, tuple)):
        for part in content:
            if _is_text(part):
                yield part if isinstance(part, str) else part["text"]


def _is_text(part: Any) -> bool:
    if isinstance(part, str):
        return True
    return isinstance(part, Mapping) and part.keys() == {"type", "text"} and isinstance(part["text"], str)


def _digests(message: Mapping[str, Any]) -> Iterator[str]:
    """One digest for everything in ``message`` that is no text: parts with their places, tool calls, names."""
    rest: dict[str, Any] = {name: value for name, value in message.items() if name not in ("role", "content")}
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        # Texts leave their place behind: an image before a question is not an image after it.
        parts = [None if _is_text(part) else part for part in content]
        if any(part is not None for part in parts) or not parts:
            rest["content"] = parts
    elif not isinstance(content, str):
        rest["content"] = [content]
    if rest:
        canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), default=str)
        yield blake2b(canonical.encode(), digest_size=DIGEST_BYTES).hexdigest()


def _kept(most: int, max_chars: int, *, long: int = 0) -> Callable[[Fold], Fold]:
    """Keeps the last ``most`` results for texts of up to ``max_chars``, and ``long`` for longer ones."""

    def decorate(fold: Fold) -> Fold:
        of_short, of_long = lru_cache(most)(fold), lru_cache(long)(fold) if long else fold

        @wraps(fold)
        def folded(text: str) -> str:
            return (of_short if len(text) <= max_chars else of_long)(text)

        return folded

    return decorate


# Asked for twice for most requests, by the key and by the guard; and most questions come again.
@_kept(KEPT_TEXTS, KEPT_CHARS, long=KEPT_LONG)
def _spaced(text: str) -> str:
    """White space folded outside protected spans, our separators taken out; case and end marks kept."""
    if text.isprintable() and _protects_nothing(text):
        # One line of plain words, as most texts are, whose only white space is blanks.
        return " ".join(text.split()) if "  " in text else text.strip()
    text = text.translate(_SEPARATORS)
    layout = _has_layout(text)
    return "".join(_spaced_span(span, layout) for span in _spans(text)).strip()


@_kept(KEPT_TEXTS, KEPT_CHARS)
def _folded(text: str) -> str:
    """What of a message's text decides whether it is the same words."""
    if _protects_nothing(text):
        return without_end_marks(_lowered(_spaced(text))).rstrip()
    text = text if text.isprintable() else text.translate(_SEPARATORS)
    layout = _has_layout(text)
    spans = [span if protected else _lowered(_spaced_span((span, False), layout)) for span, protected in _spans(text)]
    return without_end_marks("".join(spans).strip()).rstrip()


def without_end_marks(text: str) -> str:
    """``text`` without what ``_END_MARKS`` finds at its end.

    Only the run of marks there is searched: from the beginning, the pattern is tried at every character (35 us for 300
    of them, where the whole key then takes 8).
    """
    before = len(text.rstrip(_MARKS))
    found = _END_MARKS.search(text, before) if before < len(text) else None
    return text if found is None else text[: found.start()]


def _has_layout(text: str) -> bool:
    """Whether a line is indented below another; a first line's own indentation is cut off with what is around it."""
    return "\n" in text and _INDENTED.search(text.strip()) is not None


def _protects_nothing(text: str) -> bool:
    """Whether no span of ``text`` can be protected; most texts are so."""
    return text.isascii() and not ("`" in text or '"' in text or "'" in text or "~~~" in text)


def _spans(text: str) -> Iterator[tuple[str, bool]]:
    """The pieces of ``text``, each with whether it is protected."""
    if _protects_nothing(text):
        if text:
            yield _LINE_BREAKS.sub("\n", text), False
        return
    for place, span in enumerate(_PROTECTED.split(_LINE_BREAKS.sub("\n", text))):
        if span:
            yield span, place % 2 == 1


def _spaced_span(piece: tuple[str, bool], layout: bool) -> str:
    span, protected = piece
    if protected:
        return span
    compatible = _compatible(span)
    if layout:
        return _LINE_END_BLANKS.sub("\n", _INNER_BLANKS.sub(" ", compatible))
    words = " ".join(compatible.split())
    before = " " if compatible[:1].isspace() else ""
    after = " " if words and compatible[-1:].isspace() else ""
    return before + words + after


def _compatible(text: str) -> str:
    """NFKC, but for characters whose plain form is another number or formula."""
    if text.isascii():
        return text
    plain = _NOT_ASCII.sub(_compatible_character, unicodedata.normalize("NFC", text))
    return unicodedata.normalize("NFC", plain)


def _compatible_character(found: re.Match[str]) -> str:
    character = found[0]
    if unicodedata.decomposition(character).startswith(_KEPT_COMPATIBILITY):
        return character
    return unicodedata.normalize("NFKC", character)


def _lowered(text: str) -> str:
    # lower(), not casefold(): casefold makes German "Maße" (dimensions) and "Masse" (mass) one word.
    lowered = text.lower()
    if lowered == text and text.isascii():
        return text
    if is_of_encodings(lowered):
        return text[:1].lower() + text[1:]
    # Lone letters of long texts keep their case unseen: nobody types such a text twice.
    long = len(text) > KEPT_CHARS
    if text.isascii():
        return _capitals_lowered(text, letters_tell=long)
    lower = _lowered_but_lone if long or (_has_lone(text) and is_of_letters(text)) else _lowered_word
    return _WORD.sub(lambda word: lower(word[0]), text)


def _capitals_lowered(text: str, *, letters_tell: bool) -> str:
    """ASCII ``text``, in which only words with a capital can change; most have none.

    Bytes that say capital, end of a word or neither are searched for the first two. A pattern tried at every word
    takes 50 ns a character, wherever the capitals are.
    """
    classes = text.encode().translate(_CLASSES)
    pieces: list[str] = []
    done, at, lone = 0, classes.find(_CAPITAL), False
    if letters_tell and _ARTICLE.match(text):
        pieces, done, at = ["a"], 1, classes.find(_CAPITAL, 1)
    while at >= 0:
        start, end = classes.rfind(_BREAK, done, at) + 1 or done, classes.find(_BREAK, at)
        end = end if end >= 0 else len(text)
        word = text[start:end]
        pieces += text[done:start], _lowered_but_lone(word) if letters_tell else _lowered_word(word)
        lone = lone or (not letters_tell and (end - start == 1 or not word.isalnum()) and _has_lone(word))
        done, at = end, classes.find(_CAPITAL, end)
    if lone and is_of_letters(text):
        return _capitals_lowered(text, letters_tell=True)
    pieces.append(text[done:])
    return "".join(pieces)


@_kept(KEPT_WORDS, KEPT_WORD_CHARS)
def _lowered_word(word: str) -> str:
    if word.islower() or CASE_MATTERS.match(word):
        return word
    return _LETTERS.sub(lambda run: run[0] if run[0] in MEANING_IN_CAPITALS else run[0].lower(), word)


@_kept(KEPT_WORDS, KEPT_WORD_CHARS)
def _lowered_but_lone(word: str) -> str:
    if CASE_MATTERS.match(word):
        return word
    kept = {match.start() for match in LONE.finditer(word) if match[0] != "I"}
    return _LETTERS.sub(
        lambda run: run[0] if run.start() in kept or run[0] in MEANING_IN_CAPITALS else run[0].lower(), word
    )


def _has_lone(text: str) -> bool:
    return any("A" <= match[0] <= "Z" and match[0] != "I" for match in LONE.finditer(text))
