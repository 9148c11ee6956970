"""What the guard compares of a text, taken out once: words, numbers, units, dates, names, operators. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from stratarouter_runtime.cache import asking, lexicon, opposites
from stratarouter_runtime.cache.categories import CATEGORIES, REQUESTS
from stratarouter_runtime.cache.marks import emoticons, letters, unspaced, without_emoticons
from stratarouter_runtime.cache.normalise import PART, ROLE_END, TURN
from stratarouter_runtime.cache.quantities import Number, Token, units_of
from stratarouter_runtime.cache.tokens import read_tokens
from stratarouter_runtime.cache.words import (
    UNIT_CATEGORIES,
    canonical,
    content_key,
    denies,
    is_filler,
    opposed_forms,
    stem,
)
from stratarouter_runtime.cache.written import Written
from stratarouter_runtime.plain import cached_property

_REFERRING_WORDS = frozenset({"both"})
SMALL_COUNT = 12
"""Up to here a paraphrase counts things that the text lists."""

MAX_SPELT_TOKENS = 128
"""Tokens whose joined spellings are kept; longer texts are not judged by single words."""

_FLAG = re.compile(r"-\w")
_PADDED = re.compile(r"\d+\.\d+0")
"""As a quantity the last nought says nothing, as a version it does: 3.1 is not 3.10."""
_CAMEL = re.compile(r"[a-z][A-Z]")
_SEPARATORS = re.compile(r"[\s._/:\\'’\"-]")  # noqa: RUF001 - the typographic apostrophe is meant
_SQUASHED = re.compile(r"[\W_]+")
_SEARCHED = re.compile(r"(?<!\S)[a-z]+:[^\s/]")
_LOOSE_OPERATORS = frozenset("-/")
_LONE_OPERATORS = frozenset("±√!~&")
"""They say something of the one operand behind them."""
_COMPARISONS = frozenset("<>=")
_MARKS = re.compile(r"[^\w\s\x00-\x7f°€£¥₹×÷\u2212≤≥≠±√→]")  # noqa: RUF001 - what tokens are made of
_PER_MILLE = frozenset("‰‱")
_UNASSIGNED = "\U0001f000"
"""From here on a character that this Python does not know is an emoji that is younger."""
_TAGS = range(0xE0020, 0xE0080)
"""They tell the flags of England and Scotland apart."""
_CONNECTORS = frozenset(
    {
        "to",
        "from",
        "into",
        "than",
        "in",
        "over",
        "minus",
        "after",
        "before",
        "instead",
        "only",
        "onto",
        "toward",
        "towards",
    }
    | {"by", "about", "against", "of", "for", "with", "behind", "under", "above", "below", "via"}
)
LOOSE_CONNECTORS = frozenset(
    {"in", "by", "about", "against", "of", "for", "with", "behind", "under", "above", "below", "via"}
)
"""They stand for each other and go in paraphrases: the words behind them changed places only where each stands alone in
the other text."""
_SAME_CONNECTOR = {"into": "to", "onto": "to", "toward": "to", "towards": "to"}
_REFERRING = frozenset(
    {"the", "all", "these", "those", "his", "her", "their", "its", "our", "my", "other", "remaining", "rest"}
)
"""Before a small number they say that it counts what was named: "all three", "the two"."""


class Features:
    """One turn's features, in the order of the text where they are sequences. Each is read when it is first asked for:
    most texts that are compared differ by their numbers, and nothing else of them is looked at.

    Attributes:
        role: whose turn it is; empty for a lone text.
        text: what is said in it.
        attachments: digests of the parts that are no text.
    """

    def __init__(self, role: str, content: str) -> None:
        self.role = role
        self.text, *attachments = content.split(PART)
        self.attachments = tuple(attachments)
        self._tokens = read_tokens(without_emoticons(self.text))

    def is_same(self, other: Features) -> bool:
        """Whether the same is said, by the same side."""
        return (self.role, self.text, self.attachments) == (other.role, other.text, other.attachments)

    @cached_property
    def written(self) -> Written:
        """What must be the same as it is written."""
        return Written(without_emoticons(self.text), self._tokens)

    @cached_property
    def _plain(self) -> list[str]:
        return [token.plain for token in self._tokens if token.kind == "word"]

    @cached_property
    def _numbers(self) -> list[Token]:
        return [token for token in self._tokens if token.value is not None]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every word in plain form, numbers as ``#``."""
        return tuple(_shape(self._tokens))

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The distinct ones of them."""
        return frozenset(self.words)

    @cached_property
    def content(self) -> tuple[str, ...]:
        """The words that carry content, in canonical form, and the numbers."""
        return tuple(_content(self._tokens))

    @cached_property
    def numbers(self) -> tuple[Number, ...]:
        """The numbers' values, but for ordinals and ones written as words ("one of them")."""
        return tuple(_values(t for t in self._numbers if not t.ordinal and not _is_article(t)))

    @cached_property
    def amounts(self) -> frozenset[Number]:
        """The distinct ones of them."""
        return frozenset(self.numbers)

    @cached_property
    def ordinals(self) -> tuple[Number, ...]:
        """Places in a row, written as words ("the second")."""
        return tuple(_values(t for t in self._numbers if t.ordinal))

    @cached_property
    def spoken(self) -> frozenset[Number]:
        """Small whole numbers that are written as words only; a paraphrase may add them ("all three of them")."""
        return frozenset(_referring(self._tokens)) - set(_values(t for t in self._numbers if not t.worded))

    @cached_property
    def counted(self) -> dict[Number, frozenset[str]]:
        """The content word that follows each number, by number."""
        return _counted(self._tokens)

    @cached_property
    def units(self) -> dict[Number, frozenset[str]]:
        """Value and unit of every quantity that names its unit."""
        return units_of(self._tokens)

    @cached_property
    def dates(self) -> frozenset[str]:
        """Months, weekdays and relative days."""
        return frozenset(_dates(self._tokens))

    @cached_property
    def names(self) -> frozenset[str]:
        """Identifiers, versions, times, paths, addresses; in lower case."""
        return frozenset(_names(self._tokens))

    @cached_property
    def operators(self) -> tuple[str, ...]:
        """In their order."""
        return tuple(_operators(self._tokens))

    @cached_property
    def symbols(self) -> str:
        """Emoji and signs that no token takes, in their order: two flags may have the same letters; and emoticons."""
        signs = "" if self.text.isascii() else "".join(filter(_is_symbol, _MARKS.findall(self.text)))
        return signs + " ".join(emoticons(self.text))

    @cached_property
    def unspaced(self) -> str:
        """All that is written in scripts without blanks."""
        return unspaced(self.text)

    @cached_property
    def letters(self) -> tuple[str, ...]:
        """Single letters that are names, in their order."""
        return letters(self.text, self._tokens)

    @cached_property
    def opposites(self) -> frozenset[str]:
        """The words that have an opposite."""
        return frozenset(form for token in self._tokens for form in opposed_forms(_said(token)))

    @cached_property
    def tense(self) -> str:
        """Past, present, future, allowed or required, by the first auxiliary; or empty."""
        return next((asking.TENSES[word] for word in self._plain if word in asking.TENSES), "")

    @cached_property
    def negations(self) -> int:
        """How many words deny."""
        return sum(map(denies, self._plain))

    @cached_property
    def faults(self) -> frozenset[str]:
        """Words that say that something is not so, without a denial ("failed", "missing")."""
        return frozenset(map(stem, opposites.FAULTS.intersection(self._plain)))

    @cached_property
    def question(self) -> str:
        """What is asked for (who, whom, when, where, why, amount, how, what; way: where or how), or empty where
        nothing says.
        """
        return asking.question(self._plain)

    @cached_property
    def asked_by(self) -> str:
        """The word behind the first question word ("did")."""
        return asking.asked_by(self._plain)

    @cached_property
    def sought_time(self) -> str:
        """Whether a time to come is asked for: "wait" by "how long will", "moment" by "when will"; or empty."""
        return asking.sought_time(self._plain)

    @cached_property
    def by_me(self) -> frozenset[str]:
        """The content words that say what "I" or "we" do."""
        return frozenset(asking.roles(self._tokens)[0])

    @cached_property
    def to_me(self) -> frozenset[str]:
        """The content words that say what is done to "me" or "us"."""
        return frozenset(asking.roles(self._tokens)[1])

    @cached_property
    def says_one(self) -> bool:
        """Whether the text counts one in words ("one bedroom")."""
        return any(token.worded and token.value == 1 for token in self._tokens)

    @cached_property
    def searches(self) -> bool:
        """Whether search operators stand in the text ("tag:linux", "in:title"): it is key words then, no sentence."""
        return ":" in self.text and _SEARCHED.search(self.text) is not None

    @cached_property
    def entities(self) -> frozenset[str]:
        """Words written as names, in lower case."""
        return frozenset(_entities(self._tokens))

    @cached_property
    def full_names(self) -> frozenset[tuple[str, str]]:
        """Two words of a name in a row ("Barack Obama")."""
        return frozenset(_full_names(self._tokens))

    @cached_property
    def categories(self) -> dict[str, frozenset[str]]:
        """Members of closed categories, by category."""
        return _categories(self._tokens)

    @cached_property
    def objects(self) -> dict[str, frozenset[str]]:
        """The content words that stand right behind each connector ("to", "than", "about", ...)."""
        return _objects(self._tokens)

    @cached_property
    def squashed(self) -> str:
        """Letters and digits alone, in lower case."""
        return _SQUASHED.sub("", self.text).lower()

    @cached_property
    def spellings(self) -> frozenset[str]:
        """Each word, and two or three in a row written as one, of letters and digits alone."""
        parts = [part for token in self._tokens[:MAX_SPELT_TOKENS] if (part := _squashed(token.text))]
        pairs = [one + other for one, other in pairwise(parts)]
        return frozenset((*parts, *pairs, *(pair + third for pair, third in zip(pairs, parts[2:], strict=False))))


def features(text: str) -> tuple[Features, ...]:
    """The features of each turn of ``text`` (``normalise.conversation_text``)."""
    if not text.startswith(TURN):
        return (Features("", text),)
    turns = (turn.partition(ROLE_END) for turn in text.split(TURN)[1:])
    return tuple(Features(role, content) for role, _, content in turns)


_DATE_WORDS = frozenset().union(*(lexicon.MONTHS, lexicon.WEEKDAYS, lexicon.RELATIVE_DAYS, lexicon.PERIODS))


@lru_cache(maxsize=8_192)
def _is_symbol(character: str) -> bool:
    """Whether the character is one by Unicode; accents, skin tones and variation selectors only change the looks."""
    category = unicodedata.category(character)
    if category == "Cn":
        return character > _UNASSIGNED
    return (category[0] == "S" and category != "Sk") or character in _PER_MILLE or ord(character) in _TAGS


@lru_cache(maxsize=32_768)
def _squashed(text: str) -> str:
    return _SQUASHED.sub("", text).lower()


def _values(tokens: Iterable[Token]) -> Iterator[Number]:
    return (token.value for token in tokens if token.value is not None)


def _is_article(token: Token) -> bool:
    """Whether the number is a "one" that counts nothing: "this one", "one of them"."""
    return token.worded and token.value == 1 and not token.unit and not token.ordinal


def _referring(tokens: Sequence[Token]) -> Iterator[Number]:
    """Small numbers in words that count what the text has named already: "all three of them"."""
    for place, token in enumerate(tokens):
        if token.worded and isinstance(token.value, int) and token.value <= SMALL_COUNT:
            before = tokens[place - 1].plain if place else ""
            after = tokens[place + 1].plain if place + 1 < len(tokens) else ""
            if before in _REFERRING or after == "of" or token.text.lower() in _REFERRING_WORDS:
                yield token.value


def _counted(tokens: Sequence[Token]) -> dict[Number, frozenset[str]]:
    found: dict[Number, set[str]] = {}
    for place, token in enumerate(tokens):
        if token.value is None or token.ordinal:
            continue
        following = tokens[place + 1 : place + 4]
        words = (next_token.plain for next_token in following if next_token.kind == "word")
        counted = token.unit or next((canonical(word) for word in words if not is_filler(word)), "")
        if counted:
            found.setdefault(token.value, set()).add(counted)
    return {value: frozenset(words) for value, words in found.items()}


def _shape(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        if token.value is not None:
            yield "#"
        elif token.kind == "word":
            yield stem(token.plain)


def _content(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        if token.value is not None:
            if not _is_article(token) and (token.text != "1" or token.value != 1 or token.unit):
                # "One pound" is "a pound".
                yield token.unit if token.unit and token.value == 1 else f"{token.value}{token.unit}"
        elif token.kind in {"name", "quote"}:
            letters = letters_of(token.plain)
            yield canonical(letters) if letters else token.plain
        elif token.kind == "word":
            key = content_key(token.plain)
            if key is not None:
                yield key
        elif token.kind == "unit":
            yield _key(token)


def _key(token: Token) -> str:
    """The one word for a content word: its unit's name, its synonyms' first word, or itself."""
    if token.kind == "unit" or CATEGORIES.get(token.plain) in UNIT_CATEGORIES:
        return lexicon.UNITS.get(token.plain, token.plain)
    return canonical(token.plain) if token.kind == "word" else token.plain


def letters_of(name: str) -> str:
    """The letters of a name that is spelt in several ways ("node.js", "NodeJS"), in lower case.

    Empty where more than letters and separators make the name: digits or signs tell versions and paths apart.
    """
    letters = _SQUASHED.sub("", name).lower()
    return letters if letters.isalpha() and len(letters) + len(_SEPARATORS.findall(name)) == len(name) else ""


def _dates(tokens: Sequence[Token]) -> Iterator[str]:
    for place, token in enumerate(tokens):
        word = token.plain
        if (
            word not in _DATE_WORDS
            or token.kind != "word"
            or (word in lexicon.DATES_ONLY_IN_CAPITALS and not _is_dated(tokens, place))
        ):
            continue
        if word in lexicon.MONTHS or word in lexicon.WEEKDAYS:
            yield lexicon.MONTHS.get(word) or lexicon.WEEKDAYS[word]
        elif word in lexicon.RELATIVE_DAYS:
            yield word
        elif word in lexicon.PERIODS and place and tokens[place - 1].plain in lexicon.PERIOD_PLACES:
            yield f"{lexicon.PERIOD_PLACES[tokens[place - 1].plain]} {word}"


def _is_dated(tokens: Sequence[Token], place: int) -> bool:
    """Whether a word such as "may" names the month there: by its capital, and at the beginning by what follows."""
    if not tokens[place].text[0].isupper():
        return False
    return place > 0 or (len(tokens) > 1 and not is_filler(tokens[1].plain))


def _said(token: Token) -> str:
    """The word, also where it was read as the number one."""
    return "one" if token.worded and token.value == 1 else token.plain


def _names(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        oversized = token.kind == "number" and token.value is None
        padded = token.kind == "number" and not token.unit and _PADDED.fullmatch(token.text)
        if (
            token.kind == "name"
            or oversized
            or padded
            or (
                token.kind == "word"
                and not token.text.islower()
                and _CAMEL.search(token.text)
                and token.plain not in CATEGORIES
            )
        ):
            # A flag of one letter is another flag in capitals.
            yield token.text if _FLAG.fullmatch(token.text) else token.text.lower()


def _operators(tokens: Sequence[Token]) -> Iterator[str]:
    """Operators at their operands; a hyphen or slash counts only between numbers."""
    for place, token in enumerate(tokens):
        if token.kind != "operator":
            continue
        left = tokens[place - 1] if place else None
        right = tokens[place + 1] if place + 1 < len(tokens) else None
        is_number = right is not None and right.value is not None
        if token.plain in _LOOSE_OPERATORS:
            counts = is_number and left is not None and left.value is not None
        elif left is None:
            # There "*" begins a list, and ">" a quotation.
            telling = len(token.plain) > 1 or token.plain in _LONE_OPERATORS
            counts = telling or right is None or (is_number and token.plain in _COMPARISONS)
        else:
            # "2 + 2 =" is "2 + 2", and at the end ">" is a slip for "?".
            counts = right is not None or not (token.plain == ">" or (token.plain == "=" and left.value is not None))
        if counts:
            yield token.plain


def _entities(tokens: Sequence[Token]) -> Iterator[str]:
    """Words that begin with a capital though no sentence begins there, and words in capitals."""
    words = [token for token in tokens if token.kind == "word"]
    if _is_title(words):
        return
    for place, token in enumerate(words):
        acronym = len(token.text) > 1 and token.text.isupper()
        if (acronym or (place and token.text[0].isupper())) and not is_filler(token.plain):
            yield canonical(token.plain)


def _is_title(words: Sequence[Token]) -> bool:
    """Whether capitals mark a heading, not names: nearly every word has one, or a little word inside has."""
    inner = words[1:]
    capitals = [token for token in inner if token.text[0].isupper()]
    fillers = [token for token in capitals if is_filler(token.plain) and token.plain != "i"]
    lower = [token for token in inner if token.text[0].islower()]
    return len(inner) > 1 and (len(fillers) > 1 or (len(capitals) > 2 and not lower) or len(capitals) > 3 * len(lower))


def _full_names(tokens: Sequence[Token]) -> Iterator[tuple[str, str]]:
    for one, other in pairwise(tokens):
        if one.kind == other.kind == "word" and one.text[0].isupper() and other.text[0].isupper():
            yield canonical(one.plain), canonical(other.plain)


def _objects(tokens: Sequence[Token]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    connector = before = ""
    began = False
    for token in tokens:
        if token.plain in _CONNECTORS and before != "how":
            connector, began = _SAME_CONNECTOR.get(token.plain, token.plain), False
        elif connector and token.kind in {"word", "name"} and not is_filler(token.plain):
            # "In Python requests" is in requests and in Python.
            found.setdefault(connector, set()).add(_key(token))
            began = connector in LOOSE_CONNECTORS
            connector = connector if began else ""
        elif began:
            connector, began = "", False
        before = token.plain
    return {connector: frozenset(words) for connector, words in found.items()}


def _categories(tokens: Sequence[Token]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for token in tokens:
        category = "request" if token.text in REQUESTS else CATEGORIES.get(token.plain)
        if category is not None:
            found.setdefault(category, set()).add(lexicon.UNITS.get(token.plain, canonical(token.plain)))
    return {category: frozenset(members) for category, members in found.items()}
