"""What the guard compares of a text, taken out once: words, numbers, units, dates, names, operators. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from stratarouter_runtime.cache import lexicon
from stratarouter_runtime.cache.forms import BASE_FORMS
from stratarouter_runtime.cache.normalise import PART, ROLE_END, TURN
from stratarouter_runtime.cache.quantities import Number, Token, units_of, value_of, with_numbers, with_units

_TOKEN = re.compile(
    r"""
      (?P<quote>`[^`\n]+`|"[^"\n]+"|“[^“”\n]+”|(?<!\w)'[^'\n]+'(?!\w))
    | (?P<name>https?://\S+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]+\.\w[\w.]*|(?<![\w-])--?[A-Za-z][\w-]*
        |v?\d+(?:\.\d+){2,}|\d{1,2}:\d{2}(?::\d{2})?(?!\d)|[^\W_]+(?:(?:_+|::|\\)[^\W_]+)+|_+[^\W_]\w*
        |[A-Za-z]\w*(?:[./]\w+)+|[A-Za-z](?:\+\+|\#)|(?<!\w)\.[A-Za-z]\w+)
    | (?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?|(?<!\w)\.\d+|[¼-¾⅐-⅞])
    | (?P<unit>[$€£¥₹%]|°[CF]?)
    | (?P<operator>==|!=|<=|>=|&&|\|\||[-+*/^=<>\u00d7÷²³])
    | (?P<word>[^\W\d_²³]+(?:['\u2019][^\W\d_]+)?)
    """,
    re.VERBOSE,
)
_OPENING_QUOTE = re.compile(r"(?<!\w)'")
_AFTER_WORDS = ").,;:!?"
"""What stands behind a word and is no token."""
SMALL_COUNT = 12
"""Up to here a paraphrase counts things that the text lists."""

MAX_SPELT_TOKENS = 128
"""Tokens whose joined spellings are kept; longer texts are not judged by single words."""

_WORK_FORMS = frozenset({"work", "works", "working", "worked", "function", "functioning", "load", "loading", "respond"})
_OUR = re.compile(r"(?<=[bilnv])our(?=$|s$|ed$|ing$|ite|ful)")
_ISE = re.compile(r"is(?=(?:e|es|ed|ing|ation|er)$)")
_CAMEL = re.compile(r"[a-z][A-Z]")
_SEPARATORS = re.compile(r"[\s._/:\\'’\"-]")  # noqa: RUF001 - the typographic apostrophe is meant
_SQUASHED = re.compile(r"[\W_]+")
_UNIT_CATEGORIES = frozenset({"scale", "currency"})
_LOOSE_OPERATORS = frozenset("-/")
_CONNECTORS = frozenset({"to", "from", "into", "than", "over", "minus", "after", "before", "by"})
_QUESTION_WORDS = frozenset({"who", "whom", "whose", "when", "where", "why", "how", "what", "which"})
_AMOUNTS = frozenset({"many", "much", "long", "far", "old", "often", "big", "tall", "large", "high", "deep", "fast"})
_SOUGHT = {
    **dict.fromkeys(("reason", "cause", "purpose"), "why"),
    **dict.fromkeys(("time", "date", "year", "day", "month"), "when"),
    **dict.fromkeys(("place", "location", "country", "city"), "where"),
    **dict.fromkeys(("person", "name", "author", "inventor"), "who"),
    **dict.fromkeys(("number", "amount", "price", "cost", "total", "quantity", "percentage"), "amount"),
}


@dataclass(frozen=True, slots=True)
class Features:
    """One turn's features, in the order of the text where they are sequences.

    Attributes:
        role: whose turn it is; empty for a lone text.
        attachments: digests of the parts that are no text.
        words: every word in plain form, numbers as ``#``.
        vocabulary: the distinct ones of them.
        content: the words that carry content, in canonical form, and the numbers.
        numbers: the numbers' values, but for ordinals and ones written as words ("one of them").
        ordinals: places in a row, written as words ("the second").
        spoken: small whole numbers that are written as words only; a paraphrase may add them ("all three of them").
        counted: the content word that follows each number, by number.
        units: value and unit of every quantity that names its unit.
        dates: months, weekdays and relative days.
        names: identifiers, versions, times, paths, addresses; in lower case.
        quotes: quoted strings and inline code, as they stand.
        operators: sorted.
        opposites: the words that have an opposite.
        negations: how many words deny.
        question: what is asked for (who, whom, when, where, why, amount, how, what), or empty where nothing says.
        entities: words written as names, in lower case.
        full_names: two words of a name in a row ("Barack Obama").
        categories: members of closed categories, by category.
        objects: the content word behind each connector that gives a direction ("to", "than", ...); its last place.
        squashed: letters and digits alone, in lower case.
        spellings: each word, and two or three in a row written as one, of letters and digits alone.
    """

    role: str
    attachments: tuple[str, ...]
    words: tuple[str, ...]
    vocabulary: frozenset[str]
    content: tuple[str, ...]
    numbers: tuple[Number, ...]
    ordinals: tuple[Number, ...]
    spoken: frozenset[Number]
    counted: dict[Number, frozenset[str]]
    units: dict[Number, frozenset[str]]
    dates: frozenset[str]
    names: frozenset[str]
    quotes: frozenset[str]
    operators: tuple[str, ...]
    opposites: frozenset[str]
    negations: int
    question: str
    entities: frozenset[str]
    full_names: frozenset[tuple[str, str]]
    categories: dict[str, frozenset[str]]
    objects: dict[str, str]
    squashed: str
    spellings: Spellings


def features(text: str) -> tuple[Features, ...]:
    """The features of each turn of ``text`` (``normalise.conversation_text``)."""
    if not text.startswith(TURN):
        return (_turn("", text),)
    turns = (turn.partition(ROLE_END) for turn in text.split(TURN)[1:])
    return tuple(_turn(role, content) for role, _, content in turns)


def _turn(role: str, content: str) -> Features:
    text, *attachments = content.split(PART)
    tokens = _with_faults(with_units(with_numbers(_tokens(text))))
    words = [token for token in tokens if token.kind == "word"]
    plain = [token.plain for token in words]
    numbers = [token for token in tokens if token.value is not None]
    shape = tuple(_shape(tokens))
    return Features(
        role=role,
        attachments=tuple(attachments),
        words=shape,
        vocabulary=frozenset(shape),
        content=tuple(_content(tokens)),
        numbers=tuple(_values(t for t in numbers if not t.ordinal and not (t.worded and t.value == 1))),
        ordinals=tuple(_values(t for t in numbers if t.ordinal)),
        spoken=frozenset(_values(t for t in numbers if _is_small(t)))
        - set(_values(t for t in numbers if not t.worded)),
        counted=_counted(tokens),
        units=units_of(tokens),
        dates=frozenset(_dates(tokens)),
        names=frozenset(_names(tokens)),
        quotes=frozenset(token.text[1:-1] for token in tokens if token.kind == "quote"),
        operators=tuple(sorted(_operators(tokens))),
        opposites=frozenset(form for word in plain for form in _opposed(word)),
        negations=sum(map(_denies, plain)) + sum(_is_free_of(tokens, place) for place in range(2, len(tokens))),
        question=_question(plain),
        entities=frozenset(_entities(tokens)),
        full_names=frozenset(_full_names(tokens)),
        categories=_categories(tokens),
        objects=_objects(tokens),
        squashed=_SQUASHED.sub("", text).lower(),
        spellings=Spellings(tokens),
    )


_OPPOSED = frozenset(lexicon.OPPOSITES)
_DATE_WORDS = frozenset().union(*(lexicon.MONTHS, lexicon.WEEKDAYS, lexicon.RELATIVE_DAYS, lexicon.PERIODS))


@lru_cache(maxsize=32_768)
def _opposed(word: str) -> tuple[str, ...]:
    """The forms of ``word`` that have an opposite."""
    return tuple(form for form in (word, stem(word)) if form in _OPPOSED)


@lru_cache(maxsize=32_768)
def _denies(word: str) -> bool:
    return word in lexicon.NEGATIONS or word.endswith("n't")


def _is_free_of(tokens: Sequence[Token], place: int) -> bool:
    """Whether the word there denies the one before it: "nut-free"."""
    return tokens[place].plain in {"free", "less"} and tokens[place - 1].text == "-"


def _with_faults(tokens: list[Token]) -> list[Token]:
    """Words that say something does not work become one that says it is broken: they deny nothing that was asked."""
    result: list[Token] = []
    for token in tokens:
        if result and token.plain in _WORK_FORMS and _denies(result[-1].plain):
            result[-1] = Token("word", token.text, "broken")
        else:
            result.append(token)
    return result


class Spellings:
    """Each word, and two or three in a row written as one, of letters and digits alone. Built when first asked for:
    few texts are, and it takes longer than most features.
    """

    __slots__ = ("_all", "_parts")

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._parts = tuple(part for token in tokens[:MAX_SPELT_TOKENS] if (part := _squashed(token.text)))
        self._all: frozenset[str] | None = None

    def __contains__(self, spelling: str) -> bool:
        if self._all is None:
            parts = self._parts
            pairs = [one + other for one, other in pairwise(parts)]
            triples = (pair + third for pair, third in zip(pairs, parts[2:], strict=False))
            self._all = frozenset((*parts, *pairs, *triples))
        return spelling in self._all

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spellings) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash(self._parts)


@lru_cache(maxsize=32_768)
def _squashed(text: str) -> str:
    return _SQUASHED.sub("", text).lower()


def _values(tokens: Iterable[Token]) -> Iterator[Number]:
    return (token.value for token in tokens if token.value is not None)


def _is_small(token: Token) -> bool:
    return token.worded and isinstance(token.value, int) and token.value <= SMALL_COUNT


def _counted(tokens: Sequence[Token]) -> dict[Number, frozenset[str]]:
    found: dict[Number, set[str]] = {}
    for place, token in enumerate(tokens):
        if token.value is None or token.ordinal:
            continue
        following = tokens[place + 1 : place + 4]
        words = (next_token.plain for next_token in following if next_token.kind == "word")
        counted = token.unit or next((canonical(word) for word in words if not _is_filler(word)), "")
        if counted:
            found.setdefault(token.value, set()).add(counted)
    return {value: frozenset(words) for value, words in found.items()}


def _tokens(text: str) -> list[Token]:
    if any(sign in text for sign in '`"“') or _OPENING_QUOTE.search(text):
        # A quotation may go over several words.
        return [_token(match) for match in _TOKEN.finditer(text)]
    tokens: list[Token] = []
    for chunk in text.split():
        # Most of a text is plain words, which need not be tried as anything else.
        core = chunk.lstrip("(").rstrip(_AFTER_WORDS)
        if core.isascii() and core.isalpha():
            tokens.append(Token("word", core, _plain(core)))
        else:
            tokens += [_token(match) for match in _TOKEN.finditer(chunk)]
    return tokens


def _token(match: re.Match[str]) -> Token:
    kind, text = match.lastgroup or "", match[0]
    if kind == "number":
        return Token("number", text, "#", value_of(text))
    return Token(kind, text, _plain(text))


@lru_cache(maxsize=32_768)
def _plain(text: str) -> str:
    return text.lower().replace("\u2019", "'").removesuffix("'s")


def _shape(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        if token.value is not None:
            yield "#"
        elif token.kind == "word":
            yield stem(token.plain)


def _content(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        if token.value is not None:
            if not (token.worded and token.value == 1):
                yield f"{token.value}{token.unit}"
        elif token.kind in {"name", "quote"}:
            letters = letters_of(token.plain)
            yield canonical(letters) if letters else token.plain
        elif token.kind == "word":
            key = _content_key(token.plain)
            if key is not None:
                yield key
        elif token.kind == "unit":
            yield _key(token)


@lru_cache(maxsize=32_768)
def _content_key(word: str) -> str | None:
    """What a word adds to the content; None for a filler."""
    if _is_filler(word):
        return None
    return lexicon.UNITS.get(word, word) if lexicon.CATEGORIES.get(word) in _UNIT_CATEGORIES else canonical(word)


def _key(token: Token) -> str:
    """The one word for a content word: its unit's name, its synonyms' first word, or itself."""
    if token.kind == "unit" or lexicon.CATEGORIES.get(token.plain) in _UNIT_CATEGORIES:
        return lexicon.UNITS.get(token.plain, token.plain)
    return canonical(token.plain) if token.kind == "word" else token.plain


def letters_of(name: str) -> str:
    """The letters of a name that is spelt in several ways ("node.js", "NodeJS"), in lower case.

    Empty where more than letters and separators make the name: digits or signs tell versions and paths apart.
    """
    letters = _SQUASHED.sub("", name).lower()
    return letters if letters.isalpha() and len(letters) + len(_SEPARATORS.findall(name)) == len(name) else ""


@lru_cache(maxsize=32_768)
def _is_filler(word: str) -> bool:
    return word in lexicon.FILLERS or canonical(word) in lexicon.FILLERS or _denies(word)


def _dates(tokens: Sequence[Token]) -> Iterator[str]:
    for place, token in enumerate(tokens):
        word = token.plain
        if (
            word not in _DATE_WORDS
            or token.kind != "word"
            or (word in lexicon.DATES_ONLY_IN_CAPITALS and (not token.text[0].isupper() or not place))
        ):
            continue
        if word in lexicon.MONTHS or word in lexicon.WEEKDAYS:
            yield lexicon.MONTHS.get(word) or lexicon.WEEKDAYS[word]
        elif word in lexicon.RELATIVE_DAYS:
            yield word
        elif word in lexicon.PERIODS and place and tokens[place - 1].plain in lexicon.PERIOD_PLACES:
            yield f"{tokens[place - 1].plain} {word}"


def _names(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        oversized = token.kind == "number" and token.value is None
        if (
            token.kind == "name"
            or oversized
            or (
                token.kind == "word"
                and not token.text.islower()
                and _CAMEL.search(token.text)
                and token.plain not in lexicon.CATEGORIES
            )
        ):
            yield token.text.lower()


def _operators(tokens: Sequence[Token]) -> Iterator[str]:
    """Operators between operands; a hyphen or slash counts only between numbers."""
    for place, token in enumerate(tokens):
        if token.kind != "operator":
            continue
        left = tokens[place - 1] if place else None
        right = tokens[place + 1] if place + 1 < len(tokens) else None
        between = left is not None and right is not None and left.value is not None and right.value is not None
        if token.text not in _LOOSE_OPERATORS or between:
            yield token.text


def _question(words: Sequence[str]) -> str:
    for place, word in enumerate(words):
        if word in _QUESTION_WORDS:
            following = words[place + 1 : place + 3]
            if word == "how":
                return "amount" if following and following[0] in _AMOUNTS else "how"
            if word in {"what", "which"}:
                return next((_SOUGHT[next_word] for next_word in following if next_word in _SOUGHT), "what")
            if word.startswith("who"):
                # "Who did Hector kill" asks for the one to whom it was done.
                return "whom" if following and following[0] in {"did", "does", "do"} else "who"
            return word
    return ""


def _entities(tokens: Sequence[Token]) -> Iterator[str]:
    """Words that begin with a capital though no sentence begins there, and words in capitals."""
    words = [token for token in tokens if token.kind == "word"]
    if sum(token.text[0].isupper() for token in words) * 2 > len(words) > 2:
        return
    for place, token in enumerate(words):
        acronym = len(token.text) > 1 and token.text.isupper()
        if (acronym or (place and token.text[0].isupper())) and not _is_filler(token.plain):
            yield canonical(token.plain)


def _full_names(tokens: Sequence[Token]) -> Iterator[tuple[str, str]]:
    for one, other in pairwise(tokens):
        if one.kind == other.kind == "word" and one.text[0].isupper() and other.text[0].isupper():
            yield canonical(one.plain), canonical(other.plain)


def _objects(tokens: Sequence[Token]) -> dict[str, str]:
    found: dict[str, str] = {}
    connector = before = ""
    for token in tokens:
        if token.plain in _CONNECTORS and before != "how":
            connector = token.plain
        elif connector and token.kind in {"word", "name"} and not _is_filler(token.plain):
            found[connector] = _key(token)
            connector = ""
        before = token.plain
    return found


def _categories(tokens: Sequence[Token]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for token in tokens:
        category = lexicon.CATEGORIES.get(token.plain)
        if category is not None:
            found.setdefault(category, set()).add(lexicon.UNITS.get(token.plain, canonical(token.plain)))
    return {category: frozenset(members) for category, members in found.items()}


@lru_cache(maxsize=32_768)
def canonical(word: str) -> str:
    """The one word that stands for ``word`` and its synonyms."""
    if word in lexicon.SYNONYMS:
        return lexicon.SYNONYMS[word]
    root = stem(word)
    return _STEMMED_SYNONYMS.get(root, root)


@lru_cache(maxsize=32_768)
def stem(word: str) -> str:
    """``word`` without the endings of number and tense. Crude, and the same for both texts, which is what counts."""
    word = BASE_FORMS.get(word, word)
    if len(word) <= 3:
        return word
    word = _one_spelling(word)
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("ie") and len(word) > 4:
        return word[:-2] + "y"
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-2] if word.endswith(("sses", "shes", "ches", "xes")) else word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            if word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _one_spelling(word: str) -> str:
    """British spelling to American: "colour", "organise", "centre"."""
    if len(word) > 5 and "our" in word[2:]:
        word = _OUR.sub("or", word)
    return _ISE.sub("iz", word) if len(word) > 6 else word


_STEMMED_SYNONYMS = {stem(word): canonical_word for word, canonical_word in lexicon.SYNONYMS.items()}
