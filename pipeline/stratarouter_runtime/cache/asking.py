"""What a text asks for, and what it says the speaker does and suffers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from stratarouter_runtime.cache.quantities import Token
from stratarouter_runtime.cache.words import canonical, is_filler

_QUESTION_WORDS = frozenset({"who", "whom", "whose", "when", "where", "why", "how", "what", "which"})
_CAN = frozenset({"do", "can", "could", "should", "would"})
_AUXILIARIES = _CAN | {"does", "did", "is", "are", "was", "were", "will", "has", "have", "had", "must", "may", "might"}
TENSES = {
    **dict.fromkeys(("was", "were", "did", "had"), "past"),
    **dict.fromkeys(("is", "are", "do", "does", "has", "have"), "present"),
    **dict.fromkeys(("will", "shall"), "future"),
    **dict.fromkeys(("can", "could", "may"), "allowed"),
    "must": "required",
}
_TO_COME = frozenset({"do", "does", "will", "would", "should", "can", "could"})
_SUBJECTS = frozenset({"i", "we"})
_OBJECTS = frozenset({"me", "us"})
_BEING = frozenset({"am", "are", "was", "were", "be", "been", "being", "is", "get", "got", "gets", "getting"})
VERB_REACH = 4
"""Words behind "I" among which its verb is sought."""
_AMOUNTS = frozenset({"many", "much", "long", "far", "old", "often", "big", "tall", "large", "high", "deep", "fast"})
_SOUGHT = {
    **dict.fromkeys(("reason", "cause", "purpose"), "why"),
    **dict.fromkeys(("time", "date", "year", "day", "month"), "when"),
    **dict.fromkeys(("place", "location", "country", "city"), "where"),
    **dict.fromkeys(("person", "name", "author", "inventor"), "who"),
    **dict.fromkeys(("number", "amount", "price", "cost", "total", "quantity", "percentage"), "amount"),
}


def question(words: Sequence[str]) -> str:
    """What is asked for, by the first question word that asks; or empty."""
    found = [_sought(words, place) for place, word in enumerate(words) if word in _QUESTION_WORDS]
    return next((kind for kind, asks in found if asks), "")


def asked_by(words: Sequence[str]) -> str:
    """The word behind the first question word, or empty."""
    place = next((place for place, word in enumerate(words) if word in _QUESTION_WORDS), len(words))
    return words[place + 1] if place + 1 < len(words) else ""


def sought_time(words: Sequence[str]) -> str:
    """Whether "how long will" asks ("wait"), or "when will" ("moment"); or empty."""
    place = next((place for place, word in enumerate(words) if word in {"how", "when"}), len(words))
    asks = words[place : place + 3]
    if len(asks) < 3 or asks[2 if asks[0] == "how" else 1] not in _TO_COME:
        return ""
    return ("wait" if asks[1] == "long" else "") if asks[0] == "how" else "moment"


def roles(tokens: Sequence[Token]) -> tuple[set[str], set[str]]:
    """The canonical words for what the speaker does, and for what is done to him."""
    does: set[str] = set()
    suffers: set[str] = set()
    before = ""
    for place, token in enumerate(tokens):
        plain = token.plain
        if plain in _OBJECTS and before:
            suffers.add(before)
        elif plain in _SUBJECTS:
            near = [other.plain for other in tokens[max(place - 1, 0) : place + 1 + VERB_REACH] if other.kind == "word"]
            verb = next((word for word in near[near.index(plain) + 1 :] if not is_filler(word)), "")
            # "I was charged" says what was done to him, "I am charging" what he does.
            if verb and (verb.endswith("ing") or _BEING.isdisjoint(near[: near.index(verb)])):
                does.add(canonical(verb))
        before = canonical(plain) if token.kind == "word" and not is_filler(plain) else ""
    return does, suffers


def _sought(words: Sequence[str], place: int) -> tuple[str, bool]:
    """What the question word there asks for, and whether it asks: "when I pay" does not."""
    word, following = words[place], words[place + 1 : place + 3]
    after = following[0] if following else ""
    if word == "how":
        return "amount" if after in _AMOUNTS else "how", True
    if word in {"what", "which"}:
        return next((_SOUGHT[next_word] for next_word in following if next_word in _SOUGHT), "what"), True
    if word.startswith("who"):
        # "Who did Hector kill" asks for the one to whom it was done.
        return "whom" if after in {"did", "does", "do"} else "who", True
    if word == "where" and len(following) == 2 and following[0] in _CAN and following[1] in {"i", "we"}:
        # "Where can I change it" and "how can I change it" are one question.
        return "way", True
    return word, word == "why" or not after or after in _AUXILIARIES
