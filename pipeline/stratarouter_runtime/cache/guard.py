"""Judges whether two texts ask the same, by what embeddings blur. Deterministic rules, no input or output.

Each rule is a function of two turns' features that gives a reason to refuse, or None. A refusal costs one call to a
provider, a wrong pass a wrong answer: where a rule is in doubt it refuses. English; texts in other languages are
judged by their numbers, names, operators and changed words alone.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from stratarouter_runtime.cache import lexicon
from stratarouter_runtime.cache.features import Features, features, letters_of

MAX_CHARS = 8_000
"""Longer texts are only served exactly: embedding models read the first 256 to 8,192 tokens, and the likeness of two
texts says nothing about what stands behind them. Also bounds the guard's time (8 ms for prose of this length, 30 ms for
the worst text tried)."""

KEPT_CHARS = 1_000_000
"""How much text the guard keeps features for: 15 bytes a character in long texts, 70 in short ones, so 70 MB."""

SHORT_WORDS = 40
"""Up to this many words a text is one question, and rules on its single words hold; in longer ones paraphrase moves
and adds words freely."""

SAME_TEMPLATE = 0.8
"""Share of common words from which two texts are one template with other fillings."""

Rule = Callable[[Features, Features], str | None]


class RuleGuard:
    """The guard: all rules, with the features of recent texts kept. Not safe across threads."""

    def __init__(self, *, kept_chars: int = KEPT_CHARS) -> None:
        self._kept: OrderedDict[str, tuple[Features, ...]] = OrderedDict()
        self._room = kept_chars

    def differs(self, asked: str, stored: str) -> str | None:
        """The reason (``guard:number``, ...) why an answer to ``stored`` must not serve ``asked``, or None."""
        if asked == stored:
            return None
        if max(len(asked), len(stored)) > MAX_CHARS:
            return "guard:length"
        return refusal(self._features(asked), self._features(stored))

    def _features(self, text: str) -> tuple[Features, ...]:
        found = self._kept.get(text)
        if found is not None:
            self._kept.move_to_end(text)
            return found
        made = features(text)
        self._kept[text] = made
        self._room -= len(text)
        while self._room < 0 and self._kept:
            self._room += len(self._kept.popitem(last=False)[0])
        return made


def create_guard() -> RuleGuard:
    """The guard with its usual room; one for each thread."""
    return RuleGuard()


def refusal(asked: tuple[Features, ...], stored: tuple[Features, ...]) -> str | None:
    """The first rule's reason that holds for any pair of turns, or None where the conversations ask the same."""
    if [turn.role for turn in asked] != [turn.role for turn in stored]:
        return "guard:turns"
    # The last turn asks; what stands before it must be the same words, for a short question hangs on all of it.
    if any(ours.content != theirs.content for ours, theirs in zip(asked[:-1], stored[:-1], strict=True)):
        return "guard:turns"
    pairs = [(ours, theirs) for ours, theirs in zip(asked, stored, strict=True) if ours != theirs]
    return next((reason for pair in pairs for rule in RULES if (reason := rule(*pair)) is not None), None)


def _attachment(asked: Features, stored: Features) -> str | None:
    return "guard:attachment" if asked.attachments != stored.attachments else None


def _number(asked: Features, stored: Features) -> str | None:
    """Another number, or the same numbers in another order in the same template."""
    if asked.numbers == stored.numbers:
        return None
    if Counter(asked.numbers) != Counter(stored.numbers):
        return "guard:number"
    return "guard:number_order" if _likeness(asked, stored) >= SAME_TEMPLATE else None


def _unit(asked: Features, stored: Features) -> str | None:
    for value, units in asked.units.items():
        theirs = stored.units.get(value)
        if theirs is not None and units.isdisjoint(theirs):
            return "guard:unit"
    return None


def _date(asked: Features, stored: Features) -> str | None:
    return "guard:date" if asked.dates != stored.dates else None


def _token(asked: Features, stored: Features) -> str | None:
    """An identifier, path, version, time, quotation or operator that the other text lacks."""
    if asked.operators != stored.operators:
        return "guard:operator"
    if asked.quotes != stored.quotes and not (_within(asked.quotes, stored) and _within(stored.quotes, asked)):
        return "guard:quote"
    if _within(asked.names - stored.names, stored) and _within(stored.names - asked.names, asked):
        return None
    return "guard:token"


def _within(names: frozenset[str], other: Features) -> bool:
    """Whether each name occurs in ``other`` in some spelling: "node.js" in "nodejs"."""
    return all((letters := letters_of(name)) != "" and letters in other.squashed for name in names)


def _free(asked: Features, stored: Features) -> bool:
    """Whether these are long texts in words of their own, where single words say little."""
    return len(asked.words) > SHORT_WORDS and _likeness(asked, stored) < SAME_TEMPLATE


def _polarity(asked: Features, stored: Features) -> str | None:
    ours, theirs = asked.opposites - stored.opposites, stored.opposites - asked.opposites
    opposed = any(not lexicon.OPPOSITES[word].isdisjoint(theirs) for word in ours)
    return "guard:polarity" if opposed and not _free(asked, stored) else None


def _negation(asked: Features, stored: Features) -> str | None:
    differ = (asked.negations > 0) != (stored.negations > 0)
    return "guard:negation" if differ and not _free(asked, stored) else None


def _question(asked: Features, stored: Features) -> str | None:
    differ = asked.question and stored.question and asked.question != stored.question
    return "guard:question" if differ and not _free(asked, stored) else None


def _category(asked: Features, stored: Features) -> str | None:
    """Another country, language, system, ..."""
    for category, members in asked.categories.items():
        theirs = stored.categories.get(category)
        if theirs is not None and theirs != members:
            return "guard:category"
    return None


def _entity(asked: Features, stored: Features) -> str | None:
    """Each text names something that the other does not mention."""
    ours = [name for name in asked.entities if name not in stored.squashed and name not in stored.content]
    theirs = [name for name in stored.entities if name not in asked.squashed and name not in asked.content]
    return "guard:entity" if ours and theirs and not _free(asked, stored) else None


def _template(asked: Features, stored: Features) -> str | None:
    """One content word swapped for one that is no synonym, or one put in, between the same words."""
    ours, theirs = _middles(asked.content, stored.content)
    if len(ours) == 1 and len(theirs) == 1:
        return "guard:substitution"
    added = ours or theirs
    if (ours and theirs) or not added or len(asked.words) > SHORT_WORDS:
        return None
    return None if all(word in lexicon.REDUNDANT for word in added) else "guard:insertion"


def _middles(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is left of both without their common beginning and end."""
    shorter = min(len(ours), len(theirs))
    start = 0
    while start < shorter and ours[start] == theirs[start]:
        start += 1
    end = 0
    while end < shorter - start and ours[-1 - end] == theirs[-1 - end]:
        end += 1
    return ours[start : len(ours) - end], theirs[start : len(theirs) - end]


def _direction(asked: Features, stored: Features) -> str | None:
    """Each text has, behind the same connector, a word that stands elsewhere in the other: "from A to B"."""
    for connector, ours in asked.objects.items():
        theirs = stored.objects.get(connector)
        if theirs is not None and ours != theirs and theirs in asked.content and ours in stored.content:
            return None if _free(asked, stored) else "guard:direction"
    return None


def _order(asked: Features, stored: Features) -> str | None:
    """The very same words in another order ("man bites dog"), unless one clause moved as a whole."""
    ours, theirs = asked.words, stored.words
    if ours == theirs or len(ours) != len(theirs) or Counter(ours) != Counter(theirs):
        return None
    ours, theirs = _middles(ours, theirs)
    doubled = ours + ours
    moved = any(doubled[start : start + len(ours)] == theirs for start in range(1, len(ours)))
    return None if moved and len(ours) > 2 else "guard:order"


def _likeness(asked: Features, stored: Features) -> float:
    """Jaccard likeness of the two texts' words."""
    ours, theirs = set(asked.words), set(stored.words)
    return len(ours & theirs) / max(len(ours | theirs), 1)


RULES: tuple[Rule, ...] = (
    _attachment,
    _number,
    _unit,
    _date,
    _token,
    _polarity,
    _negation,
    _question,
    _category,
    _entity,
    _direction,
    _order,
    _template,
)
