"""Judges whether two texts ask the same, by what embeddings blur. Deterministic rules, no input or output.

Each rule is a function of two turns' features that gives a reason to refuse, or None. A refusal costs one call to a
provider, a wrong pass a wrong answer: where a rule is in doubt it refuses. English; texts in other languages are
judged by their numbers, names, operators and changed words alone.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

from stratarouter_runtime.cache import lexicon
from stratarouter_runtime.cache.align import Difference, denies, difference
from stratarouter_runtime.cache.features import Features, features, letters_of
from stratarouter_runtime.cache.quantities import Number

MAX_CHARS = 8_000
"""Longer texts are only served exactly: embedding models read the first 256 to 8,192 tokens, and the likeness of two
texts says nothing about what stands behind them. Also bounds the guard's time (8 ms for prose of this length, 30 ms for
the worst text tried)."""

KEPT_CHARS = 500_000
"""How much text the guard keeps features for: 130 bytes a character in short texts, less in long ones, so 65 MB."""

SHORT_WORDS = 20
"""Up to this many words a text is one question, and rules on its single words hold; in longer ones paraphrase moves
and adds words freely."""

FEW_WORDS = 20
"""Up to this many words every number counts; longer texts say some of them twice, or count what they list."""

KEYWORDS = 5
"""From this many words on a text without any function word is a list of key words, not a sentence."""

ANCHORS = 2
"""Numbers that long texts share from which their words may differ freely: chance shares one."""

SAME_TEMPLATE = 0.8
"""Share of common words from which two texts are one template with other fillings."""


@dataclass(frozen=True, slots=True)
class Setting:
    """An operating point of the guarded cache.

    Attributes:
        name: what the command line calls it.
        floor: cosine similarity below which nothing is served: the threshold to search with.
        demand: what must be left of the similarity once the differing words have cost theirs (``wording_cost``).
    """

    name: str
    floor: float
    demand: float


STRICT = Setting("strict", floor=0.70, demand=0.80)
"""The default. On the held-out labelled pairs of tests/contract/test_cache_quality.py 3 hits in 100 are wrong."""
LENIENT = Setting("lenient", floor=0.70, demand=0.76)
"""More hits: 0.78 of the same pairs are served there instead of 0.73."""
SETTINGS = {setting.name: setting for setting in (STRICT, LENIENT)}

# What each difference in the words costs, in cosine similarity of all-MiniLM-L6-v2. Fitted by ops/train_guard.py.
COST_UNSHARED = 0.14
"""For all of the content words having no counterpart; a share of them costs that share."""
COST_INSERTION = 0.09
"""For one text being the other with content words put in."""
COST_SUBSTITUTION = 0.28
"""For one content word standing in the place of another between the same words."""
COST_NAMED = 0.05
"""For a name among the words without a counterpart."""

ASSUMED = 0.90
"""The similarity of texts whose vectors are not at hand: near, and not so near that words may be put in."""

KIND_COSTS = {"guard:substitution": COST_SUBSTITUTION, "guard:insertion": COST_INSERTION, "guard:wording": 0.0}

Rule = Callable[[Features, Features], str | None]


class RuleGuard:
    """The guard: all rules, with the features of recent texts kept. Not safe across threads."""

    def __init__(self, setting: Setting = STRICT, *, kept_chars: int = KEPT_CHARS) -> None:
        self._setting = setting
        self._kept: OrderedDict[str, tuple[Features, ...]] = OrderedDict()
        self._room = kept_chars

    def differs(self, asked: str, stored: str, similarity: float = ASSUMED) -> str | None:
        """The reason (``guard:number``, ...) why an answer to ``stored`` must not serve ``asked``, or None.

        ``similarity``: cosine of their vectors. The more the words differ, the higher it must be.
        """
        if asked == stored:
            return None
        if max(len(asked), len(stored)) > MAX_CHARS:
            return "guard:length"
        ours, theirs = self._features(asked), self._features(stored)
        return refusal(ours, theirs) or doubt(ours[-1], theirs[-1], similarity - self._setting.demand)

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


def create_guard(setting: Setting = STRICT) -> RuleGuard:
    """The guard with its usual room; one for each thread."""
    return RuleGuard(setting)


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
    """Another number, or the same numbers in another order or at other things."""
    in_order = asked.numbers == stored.numbers
    if not in_order and not _interchangeable(asked, stored):
        return "guard:number"
    if _crossed(asked, stored):
        return "guard:number_order"
    if in_order and asked.ordinals == stored.ordinals:
        return None
    if _likeness(asked, stored) < SAME_TEMPLATE:
        return None
    if asked.ordinals != stored.ordinals:
        return "guard:number_order" if Counter(asked.ordinals) == Counter(stored.ordinals) else "guard:number"
    return "guard:number_order" if Counter(asked.numbers) == Counter(stored.numbers) else None


def _interchangeable(asked: Features, stored: Features) -> bool:
    """Whether the two say the same numbers, but for what one of them says twice or counts itself."""
    ours, theirs = Counter(asked.numbers), Counter(stored.numbers)
    extra, missing = ours - theirs, theirs - ours
    return not (extra and missing) and _spare(extra, asked, stored) and _spare(missing, stored, asked)


def _spare(extra: Counter[Number], features: Features, other: Features) -> bool:
    """Whether the numbers that ``other`` lacks change nothing: said twice here, or counting what is listed."""
    if not extra:
        return True
    if len(features.words) <= FEW_WORDS:
        return False
    return all(value in other.numbers or value in features.spoken or value == 1 for value in extra)


def _crossed(asked: Features, stored: Features) -> bool:
    """Whether two numbers changed places: each stands now before what the other counted."""
    ours, theirs = asked.counted, stored.counted
    moved = [value for value, words in ours.items() if value in theirs and words.isdisjoint(theirs[value])]
    return any(
        not ours[one].isdisjoint(theirs[other]) and not ours[other].isdisjoint(theirs[one])
        for one, other in combinations(moved, 2)
    )


def _unit(asked: Features, stored: Features) -> str | None:
    for value, units in asked.units.items():
        theirs = stored.units.get(value)
        if theirs is not None and units.isdisjoint(theirs):
            return "guard:unit"
    return None


def _date(asked: Features, stored: Features) -> str | None:
    if asked.dates == stored.dates:
        return None
    # A long text may name a day that its paraphrase leaves out.
    one_sided = asked.dates < stored.dates or asked.dates > stored.dates
    return None if one_sided and _free(asked, stored) else "guard:date"


def _operator(asked: Features, stored: Features) -> str | None:
    return "guard:operator" if asked.operators != stored.operators else None


def _token(asked: Features, stored: Features) -> str | None:
    """Identifiers, paths, versions, times or quotations that each text has and the other lacks."""
    if _quotes_lacking(asked, stored) and _quotes_lacking(stored, asked):
        return "guard:quote"
    lacking = _lacking(asked, stored), _lacking(stored, asked)
    # A version, time or address that only one text has is another question; an "os.path" may be left unsaid.
    numbered = any(character.isdigit() for names in lacking for name in names for character in name)
    return "guard:token" if numbered or all(lacking) else None


def _quotes_lacking(asked: Features, stored: Features) -> bool:
    return asked.quotes != stored.quotes and not all(_quoted(text, stored) for text in asked.quotes)


def _quoted(text: str, other: Features) -> bool:
    """Whether ``other`` has the quotation, with its marks or without."""
    letters = "".join(text.split())
    return text in other.quotes or (letters.isalnum() and letters.lower() in other.squashed)


def _lacking(asked: Features, stored: Features) -> frozenset[str]:
    """The names of ``asked`` that ``stored`` has in no spelling: "node.js" is "nodejs"."""
    return frozenset(name for name in asked.names - stored.names if letters_of(name) not in stored.spellings)


def _free(asked: Features, stored: Features) -> bool:
    """Whether these are long texts in words of their own, where single words say little."""
    return min(len(asked.words), len(stored.words)) > SHORT_WORDS and _likeness(asked, stored) < SAME_TEMPLATE


def _polarity(asked: Features, stored: Features) -> str | None:
    ours, theirs = asked.opposites - stored.opposites, stored.opposites - asked.opposites
    opposed = any(not lexicon.OPPOSITES[word].isdisjoint(theirs) for word in ours)
    return "guard:polarity" if opposed and not _free(asked, stored) else None


def _negation(asked: Features, stored: Features) -> str | None:
    differ = (asked.negations > 0) != (stored.negations > 0)
    return "guard:negation" if differ and not _free(asked, stored) else None


def _question(asked: Features, stored: Features) -> str | None:
    kinds = {asked.question, stored.question}
    differ = len(kinds) == 2 and kinds.isdisjoint({"", "what"})
    return "guard:question" if differ and not _free(asked, stored) else None


def _category(asked: Features, stored: Features) -> str | None:
    """Another country, language, system, ..."""
    for category, members in asked.categories.items():
        theirs = stored.categories.get(category)
        if theirs is not None and theirs != members:
            return "guard:category"
    return None


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
    if len(ours) >= KEYWORDS and len(asked.content) >= len(ours):
        # Key words without a connecting word among them: their order says nothing.
        return None
    ours, theirs = _middles(ours, theirs)
    doubled = ours + ours
    moved = any(doubled[start : start + len(ours)] == theirs for start in range(1, len(ours)))
    return None if moved and len(ours) > 2 else "guard:order"


def doubt(asked: Features, stored: Features, margin: float) -> str | None:
    """The reason where the words of two questions differ by more than ``margin``, the similarity to spare."""
    free = _free(asked, stored)
    if free and _anchored(asked, stored):
        return None
    if margin < 0:
        return "guard:wording"
    if asked == stored:
        return None
    left = difference(asked, stored)
    if not free and (reason := _opposed(asked, stored, left)) is not None:
        return reason
    reason, cost = wording_cost(asked, stored, left)
    return reason if cost > margin else None


def _opposed(asked: Features, stored: Features, left: Difference) -> str | None:
    """A word against its denial ("formal", "informal"), or one name in each text that the other does not mention."""
    if any(denies(one, other) or denies(other, one) for one in left.ours for other in left.theirs):
        return "guard:polarity"
    named = not asked.entities.isdisjoint(left.ours) and not stored.entities.isdisjoint(left.theirs)
    return "guard:entity" if named else None


def _anchored(asked: Features, stored: Features) -> bool:
    """Whether both texts give the same several numbers, as the statements of one problem do."""
    return len(set(asked.numbers) & set(stored.numbers)) >= ANCHORS


def wording_cost(asked: Features, stored: Features, left: Difference) -> tuple[str, float]:
    """What the differing words (``left``) cost in similarity, and the reason that says most of it."""
    kind = kind_of(asked, stored, left)
    cost = COST_UNSHARED * (1 - left.shared) + COST_NAMED * is_named(asked, stored, left)
    return kind, cost + KIND_COSTS[kind]


def kind_of(asked: Features, stored: Features, left: Difference) -> str:
    """One word in another's place, words put in, or other wording."""
    ours, theirs = _middles(asked.content, stored.content)
    if left.swapped == len(ours) == len(theirs) == 1:
        return "guard:substitution"
    put_in = not (ours and theirs) or is_named(asked, stored, left)
    return "guard:insertion" if put_in and not left.swapped and left.added else "guard:wording"


def is_named(asked: Features, stored: Features, left: Difference) -> bool:
    """Whether a name is among the words without a counterpart."""
    return not asked.entities.isdisjoint(left.ours) or not stored.entities.isdisjoint(left.theirs)


def _likeness(asked: Features, stored: Features) -> float:
    """Jaccard likeness of the two texts' words."""
    common = len(asked.vocabulary & stored.vocabulary)
    return common / max(len(asked.vocabulary) + len(stored.vocabulary) - common, 1)


RULES: tuple[Rule, ...] = (
    _attachment,
    _number,
    _unit,
    _date,
    _operator,
    _token,
    _polarity,
    _negation,
    _question,
    _category,
    _direction,
    _order,
)
