"""Where capitals are more than dress: in which words, and in which texts every letter's case tells. Pure."""

from __future__ import annotations

import re

CASE_MATTERS = re.compile(
    r"""https?://|[/~.]*/|-|.*[_\\]
      | (?=.*\d)(?=.*[a-z])(?=.*[A-Z])
      | (?:[a-z]+\.)*[a-z]{2,}[A-Z]            # getData is not GetData; iPhone is Iphone
      | [A-Za-z+/]{3,}={1,2}[.?!]*\Z           # base64
    """,
    re.VERBOSE,
)
"""Words that are kept as they are written: addresses, paths, flags, identifiers, codes."""

OTHER_WORDS = ("US", "IT", "WHO", "AIDS", "RAM", "PET", "SAT", "ACT", "ICE", "Polish")
_OTHER_UNITS = (
    *("Mb", "Gb", "Kb", "Tb", "MB", "GB", "KB", "TB", "kB"),
    *("mW", "MW", "MPa", "mPa", "mA", "MA", "mV", "MV"),
)
MEANING_IN_CAPITALS = frozenset((*OTHER_WORDS, *_OTHER_UNITS))
"""Words that lower case would turn into other words or units. Short on purpose: each one costs exact hits."""

_ENCODINGS = (
    *("base64", "base 64", "base-64", "base32", "base58", "md5", "sha1", "sha-1", "sha2", "sha-2", "sha5", "sha-5"),
    *("crc32", "rot13", "in binary", "to binary", "in hex", "to hex"),
)
LONE = re.compile(r"(?<![^\W_])[A-Za-z](?![^\W_])")
"""A letter that stands alone, as a name or in a formula."""
_OF_LETTERS = re.compile(
    r"\b(?:letters?|characters?|symbols?|constants?|variables?|unicode|value\s+of|stands?\s+for"
    r"|(?:what|which)\s+(?:does|do)\s.{0,20}\bmean)\b",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"(?<![^\W_])[A-Za-z]\s*(?:[=*^<>]|\+(?!\+))|(?:[=*^<>]|(?<!\+)\+)\s*[A-Za-z](?![^\W_])")


def is_of_encodings(lowered: str) -> bool:
    """Whether a text, given in lower case, asks what letters come to: the hash of "Hello" is not that of "hello"."""
    if "ascii" in lowered:
        return lowered.count("ascii") > lowered.count("ascii art")
    return any(word in lowered for word in _ENCODINGS)


def is_of_letters(text: str) -> bool:
    """Whether lone letters of ``text`` are symbols, so that G is not g.

    Not in "vitamin C" or "plan B", which many write small: it must be a formula, ask for a letter, or have one letter
    in both cases.
    """
    if _OF_LETTERS.search(text) is not None or _FORMULA.search(text) is not None:
        return True
    lone = set(LONE.findall(text)) - {"a", "A"}
    return len({letter.lower() for letter in lone}) < len(lone)
