"""Reads numbers, fractions, percentages and units out of a text's tokens, however they are written. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

from stratarouter_runtime.cache import lexicon

MAX_DIGITS = 40
"""Longer runs of digits are names, not quantities; Python refuses to convert beyond 4,300."""

Number = int | Fraction

_ROUND_TENS = range(20, 100, 10)
_UNITS_DIGITS = range(1, 10)
_BEFORE_ORDINALS = frozenset(
    {"the", "every", "each", "a", "and", "or", "his", "her", "its", "my", "your", "our", "their"}
)
_AFTER_PARTS = frozenset(
    {"as", "more", "less", "fewer", "off", "the", "that", "and", "or", "for", "in", "to", "from", "is", "are", "was"}
    | {"were", "when", "if", "by", "than", "larger", "smaller", "longer", "shorter", "full", "on", "at", "with"}
)
"""Before these "a third" is a part; before another word it is one thing more."""
_ARTICLES = frozenset({"a", "an"})
_BEFORE_UNITS = _ARTICLES | {"-"}
"""What may stand between a number and its unit: "half-hour", "half an hour"."""
_SMALLER: dict[str, tuple[int, str]] = {
    "year": (12, "month"),
    "day": (24, "hour"),
    "hour": (60, "minute"),
    "minute": (60, "second"),
    "kilometre": (1000, "metre"),
    "metre": (100, "centimetre"),
    "kilogram": (1000, "gram"),
    "litre": (1000, "millilitre"),
    "dollar": (100, "cent"),
}
_VAGUE_UNITS = frozenset({"", "degree"})
"""What another word may still tell: "degrees Celsius"."""
_TEMPERATURES = frozenset({"celsius", "fahrenheit", "kelvin"})
_CURRENCIES = frozenset("$€£¥₹")
_NUMBER_WORDS = frozenset().union(
    *(lexicon.CARDINALS, lexicon.MULTIPLES, lexicon.PARTS, lexicon.ORDINALS, lexicon.SCALES)
)


@dataclass(slots=True)
class Token:
    """A token on its way to the features: kind, text as written, plain form, numeric value and unit.

    ``worded``: written as a word; ``ordinal``: it names a place in a row and counts nothing.
    """

    kind: str
    text: str
    plain: str
    value: Number | None = None
    worded: bool = False
    unit: str = ""
    ordinal: bool = False


def value_of(text: str) -> Number | None:
    """The exact value of digits as written ("80,000", ".5", "½"); None where they are too many to be a quantity."""
    if len(text) > MAX_DIGITS:
        return None
    if text.isdecimal():
        return int(text)
    if not text.isdigit() and len(text) == 1:
        return Fraction(unicodedata.numeric(text)).limit_denominator(10)
    exact = Fraction(text.replace(",", ""))
    return exact.numerator if exact.denominator == 1 else exact


def with_numbers(tokens: list[Token]) -> list[Token]:
    """Number words, fractions, percentages and scales become numbers of their value."""
    result: list[Token] = []
    for place, token in enumerate(tokens):
        if token.value is None and token.plain not in _NUMBER_WORDS and (not result or result[-1].value is None):
            # Most words: neither a number nor behind one.
            result.append(token)
            continue
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        hyphen = len(result) > 1 and result[-1].text == "-"
        # "One-third" is "one third".
        value = _worded(token, result[-1 - hyphen] if result else None, after)
        read = token
        if value is not None:
            ordinal = token.plain in lexicon.ORDINALS and isinstance(value, int)
            read = Token("number", token.text, "#", value, worded=True, ordinal=ordinal)
            read.unit = lexicon.SCALE_UNITS.get(token.plain, "")
        if not _joined(result, read):
            result.append(read)
    return result


def _worded(token: Token, before: Token | None, after: Token | None) -> Number | None:
    """The value of a number word where it stands; None for any other word."""
    if token.kind != "word":
        return None
    word = token.plain
    if word in lexicon.CARDINALS:
        return lexicon.CARDINALS[word]
    if word in lexicon.MULTIPLES:
        return lexicon.MULTIPLES[word]
    counted = before is not None and (before.plain in {"a", "one"} or before.worded)
    divides = word.startswith("hal") or word.endswith("s") or (after is not None and after.plain == "of")
    if counted and not divides:
        # "A third as many", "a third less", but "a third set", "a third says".
        place = before is not None and before.plain == "a" and word in lexicon.ORDINALS
        divides = not (place and after is not None and after.kind == "word" and after.plain not in _AFTER_PARTS)
    if word in lexicon.PARTS and divides:
        return lexicon.PARTS[word]
    if word in lexicon.ORDINALS and (word != "second" or (before is not None and before.plain in _BEFORE_ORDINALS)):
        return lexicon.ORDINALS[word]
    # A scale behind a number multiplies it; alone it counts itself: "a hundred", "per dozen".
    alone = before is None or before.value is None
    return lexicon.SCALES.get(word) if alone else None


def _joined(result: list[Token], token: Token) -> bool:
    """Whether ``token`` was read as part of the number before it: "twenty five", "3 / 5", "5 million", "50 %"."""
    last = result[-1] if result else None
    if last is None:
        return False
    if last.value is not None and token.value is None:
        return _scaled(last, token)
    if token.value is None:
        return False
    if last.text == "/" and len(result) > 1:
        return _fraction(result, token)
    compound = token.worded and (isinstance(token.value, Fraction) or (len(result) > 1 and _tens(result[-2], token)))
    if last.text == "-" and len(result) > 1 and result[-2].value is not None and compound:
        result.pop()
        last = result[-1]
    return _added(last, token)


def _scaled(last: Token, token: Token) -> bool:
    assert last.value is not None
    factor = lexicon.SCALES.get(token.plain) or (lexicon.SUFFIX_SCALES.get(token.plain) if not last.worded else None)
    if factor is not None:
        last.value = _whole(Fraction(last.value) * factor)
        last.worded = last.worded and last.value != 1
        last.unit = lexicon.SCALE_UNITS.get(token.plain, last.unit)
        return True
    if lexicon.UNITS.get(token.plain) == "percent":
        last.value = _whole(Fraction(last.value) / 100)
        return True
    return token.kind == "word" and token.plain in {"st", "nd", "rd", "th"}


def _fraction(result: list[Token], divisor: Token) -> bool:
    """Whether ``divisor`` was joined to what stands before the slash.

    Only a proper fraction in its lowest terms is a number: "3/4" is 75 %. Others are kept as they are written, for they
    are dates, measurements and bars as often as quotients: "120/80" is not "180/120", "4/2" not "6/3".
    """
    over = result[-2]
    if over.value is None and not (over.kind == "name" and "/" in over.text):
        return False
    result.pop()
    above, below = over.value, divisor.value
    over.text = over.plain = f"{_figure(over)}/{_figure(divisor)}"
    if isinstance(above, int) and isinstance(below, int) and 0 < above < below and gcd(above, below) == 1:
        over.value = Fraction(above, below)
    else:
        over.kind, over.value, over.unit = "name", None, ""
    return True


def _figure(token: Token) -> str:
    """A part of a written ratio; "01" is "1"."""
    return str(token.value) if isinstance(token.value, int) else token.text


def _tens(last: Token, token: Token) -> bool:
    return last.worded and last.value in _ROUND_TENS and token.value in _UNITS_DIGITS


def _added(last: Token, token: Token) -> bool:
    """Whether two numbers are one: "twenty" and "five", "two" and "thirds", "2" and "½"."""
    if last.value is None or token.value is None:
        return False
    if token.worded and _tens(last, token):
        last.value = _whole(Fraction(last.value) + token.value)
        return True
    if isinstance(token.value, Fraction) and isinstance(last.value, int) and (token.worded or len(token.text) == 1):
        last.value = _whole(last.value * token.value if token.worded else last.value + token.value)
        return True
    return False


def _whole(value: Fraction) -> Number:
    return value.numerator if value.denominator == 1 else value


def with_units(tokens: list[Token]) -> list[Token]:
    """Gives each number the unit that stands beside it; the unit's own token goes, and so does a hyphen between."""
    result: list[Token] = []
    for token in tokens:
        last = result[-1] if result else None
        if last is not None and last.value is None and token.value is None and last.plain not in _BEFORE_UNITS:
            result.append(token)
            continue
        if token.value is not None and last is not None and last.text in _CURRENCIES:
            result.pop()
            token.unit = lexicon.UNITS[last.text]
        # "half-hour", "half an hour"
        joint = last is not None and len(result) > 1 and (last.text == "-" or _halves(result[-2], last))
        number = result[-2] if joint else last
        unit = None if number is None or number.value is None or number.unit not in _VAGUE_UNITS else _unit(token)
        if number is not None and number.unit == "degree" and unit not in _TEMPERATURES:
            unit = None
        if unit is None or number is None:
            result.append(token)
            continue
        number.unit = unit
        if number is not last:
            result.pop()
        _in_whole_units(number)
    return result


def _halves(number: Token, token: Token) -> bool:
    return token.plain in _ARTICLES and number.worded and isinstance(number.value, Fraction)


def _in_whole_units(number: Token) -> None:
    """Half an hour is 30 minutes: a fraction of a unit becomes a whole number of the next smaller one."""
    value, smaller = number.value, _SMALLER.get(number.unit)
    if isinstance(value, Fraction) and smaller is not None and (value * smaller[0]).denominator == 1:
        number.value, number.unit = _whole(value * smaller[0]), smaller[1]


def _unit(token: Token) -> str | None:
    """The unit that ``token`` names, in one name per unit: "km" and "kilometres" are one."""
    if token.kind not in {"word", "unit"}:
        return None
    return lexicon.UNITS_BY_CASE.get(token.text) or lexicon.UNITS.get(token.plain)


def units_of(tokens: Sequence[Token]) -> dict[Number, frozenset[str]]:
    """The units that stand beside each value."""
    found: dict[Number, set[str]] = {}
    for token in tokens:
        if token.value is not None and token.unit:
            found.setdefault(token.value, set()).add(token.unit)
    return {value: frozenset(units) for value, units in found.items()}
