"""Rules of the guard on where words stand: direction, sides, order. Pure."""

from __future__ import annotations

from collections import Counter

from stratarouter_runtime.cache.features import LOOSE_CONNECTORS, Features
from stratarouter_runtime.cache.likeness import SAME_TEMPLATE, are_free, likeness, middles
from stratarouter_runtime.cache.words import canonical, stem

KEYWORDS = 5
"""From this many words on a text without any function word is a list of key words, not a sentence."""
COMPARED = canonical("versus")
"""What is compared may stand in either order."""
OPPOSED_CONNECTORS = (("to", "from"), ("by", "about"), ("for", "against"), ("over", "under"), ("above", "below"))
"""What they say of one word is not the same: "books by him", "books about him"."""
TELLING_CONNECTORS = frozenset({"with", "without", "from", "by", "about", "against", "over", "under", "via"})
"""Put before a word they change what is asked: "install pip", "install with pip"."""
POINTING = {
    stem(form): person
    for person, forms in {
        "i": "i me my mine myself",
        "you": "you your yours yourself",
        "he": "he him his himself",
        "she": "she her hers herself",
        "it": "it its itself",
        "we": "we us our ours ourselves",
        "they": "they them their theirs themselves",
        "this": "this these",
        "that": "that those",
    }.items()
    for form in forms.split()
}
"""Whom or what a word points at, by its stem."""
AGREEING = frozenset(map(stem, ("do", "does", "is", "are", "am", "was", "were", "has", "have")))
"""They go with the person."""
JOINING = frozenset({"and", "or"})
MAX_ROLES = 16
"""Content words among which changed sides are looked for."""
_NONE: frozenset[str] = frozenset()


def other_direction(asked: Features, stored: Features) -> str | None:
    """Each text has, behind the same connector, a word that stands elsewhere in the other: "from A to B"."""
    for connector, ours in asked.objects.items():
        theirs = stored.objects.get(connector)
        if theirs is None or ours == theirs:
            continue
        moved = [word for word in theirs - ours if word in asked.content]
        back = [word for word in ours - theirs if word in stored.content]
        if connector in LOOSE_CONNECTORS:
            if likeness(asked, stored) < SAME_TEMPLATE:
                continue
            moved = [word for word in moved if _stands_alone(word, asked)]
            back = [word for word in back if _stands_alone(word, stored)]
        if moved and back and not (are_free(asked, stored) and not _are_named(moved, back, asked, stored)):
            return "guard:direction"
    return None


def is_turned(asked: Features, stored: Features) -> bool:
    """Whether what is compared changed sides: "faster than Java", asked of Python, is "slower than Python"."""
    ours, theirs = asked.objects.get("than", _NONE), stored.objects.get("than", _NONE)
    if not (ours and theirs) or not ours.isdisjoint(theirs):
        return False
    return ours.issubset(stored.content) and theirs.issubset(asked.content)


def other_connector(asked: Features, stored: Features) -> str | None:
    """One word that is connected otherwise: "translate it into Spanish", "translate it from Spanish"."""
    if are_free(asked, stored):
        return None
    for ours, theirs in ((asked, stored), (stored, asked)):
        for one, other in OPPOSED_CONNECTORS:
            words = ours.objects.get(one, _NONE) & theirs.objects.get(other, _NONE)
            if words - ours.objects.get(other, _NONE) - theirs.objects.get(one, _NONE):
                return "guard:direction"
    longer, shorter = sorted((asked.words, stored.words), key=len, reverse=True)
    if len(longer) != len(shorter) + 1 or asked.content != stored.content:
        return None
    (*put_in,), rest = middles(longer, shorter)
    return "guard:direction" if not rest and TELLING_CONNECTORS.issuperset(put_in) else None


def _stands_alone(word: str, features: Features) -> bool:
    """Whether the word stands behind no connector."""
    return not any(word in words for words in features.objects.values())


def _are_named(moved: list[str], back: list[str], asked: Features, stored: Features) -> bool:
    """Whether names or days changed places: these mean the same wherever they stand."""
    names = (asked.entities & stored.entities) | {canonical(day) for day in asked.dates & stored.dates}
    return not names.isdisjoint(moved) and not names.isdisjoint(back)


def sides_changed(asked: Features, stored: Features) -> str | None:
    """Two words that changed sides of a third: "did Anna lend Ben her car", "did Ben lend Anna his car"."""
    ours, theirs = asked.content[:MAX_ROLES], stored.content[:MAX_ROLES]
    if asked.searches and stored.searches:
        return None
    if not _is_reordered(ours, theirs) or COMPARED in ours:
        return None
    turned = {triple[::-1] for triple in zip(theirs, theirs[1:], theirs[2:], strict=False)}
    return next(
        (
            "guard:order"
            for triple in zip(ours, ours[1:], ours[2:], strict=False)
            if triple in turned and all(_is_bare(word, asked, stored) for word in triple)
        ),
        None,
    )


def roles_changed(asked: Features, stored: Features) -> str | None:
    """What the speaker does in one text is done to him in the other: "can I call you", "can you call me"."""
    if are_free(asked, stored):
        return None
    for ours, theirs in ((asked, stored), (stored, asked)):
        if (ours.by_me & theirs.to_me) - ours.to_me - theirs.by_me:
            return "guard:direction"
    return None


def _is_bare(word: str, asked: Features, stored: Features) -> bool:
    """Whether the word stands behind no connector in either text."""
    return _stands_alone(word, asked) and _stands_alone(word, stored)


def other_order(asked: Features, stored: Features) -> str | None:
    """The very same words in another order ("man bites dog"), unless one clause moved as a whole."""
    ours, theirs = asked.words, stored.words
    if asked.searches and stored.searches:
        return None
    if not _is_reordered(ours, theirs) or COMPARED in asked.content or asked.content == stored.content:
        return None
    if len(ours) >= KEYWORDS and len(asked.content) >= len(ours):
        # Key words without a connecting word among them: their order says nothing.
        return None
    ours, theirs = middles(ours, theirs)
    if ours == theirs[::-1] and len(ours) == 3 and ours[1] in {"or", "and"}:
        return None
    doubled = ours + ours
    moved = any(doubled[start : start + len(ours)] == theirs for start in range(1, len(ours)))
    return None if moved and len(ours) > 2 else "guard:order"


def persons_changed(asked: Features, stored: Features) -> str | None:
    """The same words, but those whom they point at changed places: "is he taller than she", "is she taller than he"."""
    if len(asked.words) != len(stored.words):
        return None
    pairs = [(one, other) for one, other in zip(asked.words, stored.words, strict=True) if one != other]
    said = [(POINTING.get(one), POINTING.get(other)) for one, other in pairs if not AGREEING.issuperset((one, other))]
    ours, theirs = [one for one, _ in said], [other for _, other in said]
    if ours == theirs or None in ours + theirs:
        return None
    return "guard:direction" if Counter(ours) == Counter(theirs) else None


def other_letters(asked: Features, stored: Features) -> str | None:
    """Letters that are names and stand in another order ("divide a by b"), or an "a" that one text lacks ("plan a")."""
    ours, theirs = asked.letters, stored.letters
    if ours.count("a") != theirs.count("a"):
        return "guard:entity"
    if not _is_reordered(ours, theirs) or COMPARED in asked.content:
        return None
    return None if _are_joined(asked) and _are_joined(stored) else "guard:order"


def _are_joined(features: Features) -> bool:
    """Whether two of its letters stand side by side: "A and B"."""
    triples = zip(features.words, features.words[1:], features.words[2:], strict=False)
    return any(
        word in JOINING and one in features.letters and other in features.letters for one, word, other in triples
    )


def _is_reordered(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Whether both are the same words in another order."""
    return ours != theirs and len(ours) == len(theirs) and Counter(ours) == Counter(theirs)
