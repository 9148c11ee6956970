"""Says how the words of two short texts differ, once all that means the same is matched. Pure.

What remains is weighed by ``guard``: the less two texts agree in their words, the nearer their vectors must be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from stratarouter_runtime.cache import opposites
from stratarouter_runtime.cache.families import KIN
from stratarouter_runtime.cache.features import Features
from stratarouter_runtime.cache.fillers import REDUNDANT, TELLING
from stratarouter_runtime.cache.thesaurus import RELATED
from stratarouter_runtime.cache.words import canonical, stem

JOINED_LETTERS = 4
"""From this length on a word may stand inside other words of the other text ("showtimes", "show times"); shorter ones
stand in many by chance."""

MAX_LEFT = 64
"""Words without a counterpart up to which pairs are sought: every one is compared with every other, 2 ms for 64. What
differs in more is no paraphrase that words could show."""

ROOT_LETTERS = 5
"""Words that begin alike for at least so long may be forms of one word, which their endings must show: "prednisone" and
"prednisolone" begin alike for longer than most."""
SLIP_LETTERS = 8
"""Words so long may be misspelt; among shorter ones other words are a letter away ("diary", "dairy")."""
WHOLE_LETTERS = 3
"""Letters at the end in which a slip is none: they are an ending ("formal", "formula")."""
_ENDINGS = frozenset({"ly", "ness", "ful", "ment", "able", "ship"})
"""Behind a word they say the same of it in another part of speech."""
_LONG_ENDINGS = {"ion": 5, "ation": 6, "ally": 6}
"""Behind a word they do so where it is that long."""
_ALTERNATING = ({"y", "ication"}, {"l", "ility"})
"""Endings that stand for each other: "notify", "notification"; "compatible", "compatibility"."""
Place = tuple[str, str]
"""The words before and after a word."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What two texts do not share.

    Attributes:
        ours: the content words of the text asked that have no counterpart; ``theirs`` those of the other. At most
            MAX_LEFT of each.
        swapped: content words that have another word in their place: the fewer of both sides' left words.
        added: content words that one side has more.
        shared: share of the content that both texts have, 0 to 1.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    swapped: int
    added: int
    shared: float


def difference(asked: Features, stored: Features) -> Difference:
    """How the content words of ``asked`` and ``stored`` differ."""
    common = Counter(asked.content) & Counter(stored.content)
    ours, theirs = _left(asked, common), _left(stored, common)
    if max(len(ours), len(theirs)) > MAX_LEFT:
        return _counted(ours[:MAX_LEFT], theirs[:MAX_LEFT], (len(ours), len(theirs)), sum(common.values()))
    ours, theirs, related = _matched(ours, theirs)
    if {asked.sought_time, stored.sought_time} == {"wait", "moment"}:
        # "How long do refunds take", "when will I get my refund".
        ours, theirs = ([word for word in side if word not in _WAIT] for side in (ours, theirs))
    if (asked.negations > 0) != (stored.negations > 0):
        # "I can't log in", "trouble logging in".
        ours, theirs = (ours, _not_denied(theirs, stored)) if asked.negations else (_not_denied(ours, asked), theirs)
    ours, theirs = _undoubled(ours, theirs, asked, stored, common)
    ours, in_theirs = _spelt_out(ours, stored)
    theirs, in_ours = _spelt_out(theirs, asked)
    related += bool(in_theirs) + bool(in_ours)
    if in_theirs:
        theirs = [word for word in theirs if word not in in_theirs]
    if in_ours:
        ours = [word for word in ours if word not in in_ours]
    heavy = [[word for word in side if word not in _LIGHT] for side in (ours, theirs)]
    if ours and theirs and (not heavy[0] or not heavy[1]):
        # A little word stands for what the other side has in its place: "New York City", "New York State".
        heavy = [ours, theirs]
    return _counted(ours, theirs, (len(heavy[0]), len(heavy[1])), sum(common.values()) + related)


def is_empty(left: Difference) -> bool:
    """Whether no word without a counterpart may tell two questions apart."""
    return not left.swapped and not left.added and _EMPTY.issuperset(left.ours) and _EMPTY.issuperset(left.theirs)


def _counted(ours: Sequence[str], theirs: Sequence[str], counts: tuple[int, int], same: int) -> Difference:
    swapped = min(counts)
    shared = same / max(same + sum(counts), 1)
    return Difference(tuple(ours), tuple(theirs), swapped, max(counts) - swapped, shared)


def _left(features: Features, common: Counter[str]) -> list[str]:
    left = Counter(features.content) - common
    return list(left.elements())


def _undoubled(
    ours: list[str], theirs: list[str], asked: Features, stored: Features, common: Counter[str]
) -> tuple[list[str], list[str]]:
    """Both sides without what they say twice, but for words that stand where the other side says something else."""
    # Names that both sides add are two names: "Christmas Eve", "New Year's Eve".
    added = not (ours and theirs)
    fewer = _not_doubled(ours, asked, common, names=added), _not_doubled(theirs, stored, common, names=added)
    if added:
        return fewer
    if fewer != (ours, theirs):
        # "Include everything except dental", "include everything including dental".
        places = _places(ours, asked), _places(theirs, stored)
        shared = set().union(*places[0].values()) & set().union(*places[1].values())
        if shared:
            fewer = _kept(ours, fewer[0], places[0], shared), _kept(theirs, fewer[1], places[1], shared)
    # Said twice on both sides, but not the same: one took the other's place.
    return fewer if any(fewer) else (ours, theirs)


def _not_doubled(words: list[str], features: Features, common: Counter[str], *, names: bool) -> list[str]:
    """Without the words that add nothing to what both texts say: "a (discussion) thread", "(Barack) Obama"."""
    full_names = features.full_names if names else frozenset()
    return [
        word for word in words if not any((word, other) in full_names or are_related(word, other) for other in common)
    ]


def _places(words: list[str], features: Features) -> dict[str, set[Place]]:
    """Between which words each of ``words`` stands."""
    found: dict[str, set[Place]] = {word: set() for word in words}
    content = ("", *features.content, "")
    for before, word, after in zip(content, content[1:], content[2:], strict=False):
        if word in found:
            found[word].add((before, after))
    return found


def _kept(words: list[str], fewer: list[str], places: dict[str, set[Place]], shared: set[Place]) -> list[str]:
    """``fewer`` and those of ``words`` that stand in one of the ``shared`` places."""
    return [word for word in words if word in fewer or not places[word].isdisjoint(shared)]


def _not_denied(words: list[str], features: Features) -> list[str]:
    """Without the words that say what the other text says by a denial."""
    faults = set(map(canonical, features.faults)) if features.faults else ()
    return [word for word in words if word not in faults]


def _matched(ours: Sequence[str], theirs: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Both sides without the pairs that mean about the same, and how many pairs those were."""
    rest, left = list(theirs), []
    for word in ours:
        partner = next((other for other in rest if are_related(word, other)), None)
        if partner is None:
            left.append(word)
        else:
            rest.remove(partner)
    return left, rest, len(ours) - len(left)


@lru_cache(maxsize=32_768)
def are_related(one: str, other: str) -> bool:
    """Whether two canonical words mean about the same, or are forms of one word."""
    if one == other:
        return True
    if _opposed(one, other):
        return False
    near = _related().get(one)
    return (near is not None and other in near) or is_one_root(one, other)


@lru_cache(maxsize=32_768)
def is_one_root(one: str, other: str) -> bool:
    """Whether two canonical words are forms or spellings of one word, by the lists or by English endings."""
    near = _kin().get(one)
    if near is not None and other in near:
        return True
    shorter, longer = sorted((one, other), key=len)
    if not (shorter.isascii() and longer.isascii()):
        return False
    return _is_derived(shorter, longer) or is_misspelt(shorter, longer)


def _is_derived(shorter: str, longer: str) -> bool:
    """Whether what two words do not share are endings of one word's forms."""
    start = _shared(shorter, longer)
    ours, theirs = shorter[start:], longer[start:]
    if ours:
        return start >= ROOT_LETTERS and {ours, theirs} in _ALTERNATING
    return (theirs in _ENDINGS and start > ROOT_LETTERS - 2) or start >= _LONG_ENDINGS.get(theirs, len(longer))


def _shared(one: str, other: str) -> int:
    """How many letters two words begin alike with."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    return start


def is_misspelt(shorter: str, longer: str) -> bool:
    """Whether two long words differ as a slip of the pen does: letters changed places, one in excess.

    One for another is not taken for a slip: "complement", "compliment"; "prescribe", "proscribe".
    """
    if len(shorter) < SLIP_LETTERS or shorter[0] != longer[0] or len(longer) > len(shorter) + 1:
        return False
    if not (shorter.isalpha() and longer.isalpha()) or (_is_known(shorter) and _is_known(longer)):
        return False
    start = _shared(shorter, longer)
    ours, theirs = shorter[start:], longer[start:]
    if len(theirs) <= WHOLE_LETTERS:
        return False
    if len(ours) == len(theirs):
        return ours[:2] == theirs[1::-1] and ours[2:] == theirs[2:]
    return ours == theirs[1:]


def _is_known(word: str) -> bool:
    """Whether the lists have the word: no slip makes one of them of another."""
    return word in _related() or word in _kin()


def _opposed(one: str, other: str) -> bool:
    return other in opposites.OPPOSITES.get(one, ()) or denies(one, other) or denies(other, one)


def denies(word: str, other: str) -> bool:
    """Whether ``word`` is ``other`` with a prefix that makes the opposite of it."""
    return len(other) > 3 and word.endswith(other) and word.removesuffix(other) in opposites.DENYING_PREFIXES


def _spelt_out(words: Sequence[str], other: Features) -> tuple[list[str], set[str]]:
    """The ``words`` that ``other`` has in no other spelling, and its words that those others stand for.

    A word that ``other`` has as it is says something twice here.
    """
    left: list[str] = []
    covered: set[str] = set()
    for word in words:
        if len(word) >= JOINED_LETTERS and word.isalpha() and word in other.spellings and word not in other.content:
            covered.update(part for part in other.content if len(part) >= 2 and part in word)
            continue
        letters = _acronym(word, other.content)
        if letters:
            covered.update(letters)
        else:
            left.append(word)
    return left, covered


def _acronym(word: str, content: Sequence[str]) -> tuple[str, ...]:
    """The words in a row of ``content`` whose first letters make ``word``."""
    size = len(word)
    if not 2 <= size <= 5 or not word.isalpha():
        return ()
    initials = "".join(part[0] for part in content)
    place = initials.find(word)
    return tuple(content[place : place + size]) if place >= 0 else ()


def _forms(words: Iterator[str]) -> set[str]:
    return {form for word in words for form in (word, canonical(word))}


_LIGHT = frozenset(_forms(iter(REDUNDANT)))
_WAIT = frozenset(map(canonical, ("long", "take")))
_EMPTY = _LIGHT - _forms(iter(TELLING))


def _table(near: dict[str, frozenset[str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for word, words in near.items():
        for form in {word, canonical(word), stem(word)}:
            found.setdefault(form, set()).update(_forms(iter(words)))
    return found


# Made when they are first asked for: 25 ms, which a worker's start does not need.


@cache
def _related() -> dict[str, set[str]]:
    return _table(RELATED)


@cache
def _kin() -> dict[str, set[str]]:
    return _table(KIN)
