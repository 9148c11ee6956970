"""Rules of the guard: each is a function of two turns' features that gives a reason to refuse, or None. Pure.

A refusal costs one call to a provider, a wrong pass a wrong answer: where a rule is in doubt it refuses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

from stratarouter_runtime.cache import opposites
from stratarouter_runtime.cache.features import Features, letters_of
from stratarouter_runtime.cache.likeness import SAME_TEMPLATE, are_free, likeness
from stratarouter_runtime.cache.placing import (
    COMPARED,
    is_turned,
    other_connector,
    other_direction,
    other_letters,
    other_order,
    persons_changed,
    roles_changed,
    sides_changed,
)
from stratarouter_runtime.cache.quantities import Number
from stratarouter_runtime.cache.written import Written, quoted, unquoted

FEW_WORDS = 20
"""Up to this many words every number counts; longer texts say some of them twice, or count what they list."""
LISTED = 2
"""Up to this place one text counts ("the first", "the second") what its paraphrase need not."""
WAYS = tuple({"way", other} for other in ("where", "how"))
"""Where one can do something is how one does it."""

_NONE: frozenset[str] = frozenset()
_PUNCTUATION = re.compile(r"[\s.,:;!?'’()-]")  # noqa: RUF001 - the typographic apostrophe is meant
WHAT_OR_OTHER = tuple({"what", other} for other in ("when", "where", "why", "whom"))
_PRESENT = frozenset({"today"})
"""Whoever names no day means it."""

Rule = Callable[[Features, Features], str | None]


def refusal(asked: tuple[Features, ...], stored: tuple[Features, ...]) -> str | None:
    """The first rule's reason that holds for any pair of turns, or None where the conversations ask the same."""
    if [turn.role for turn in asked] != [turn.role for turn in stored]:
        return "guard:turns"
    # The last turn asks; what stands before it must be the same words, for a short question hangs on all of it.
    earlier = zip(asked[:-1], stored[:-1], strict=True)
    if any(ours.text != theirs.text and ours.written.folded != theirs.written.folded for ours, theirs in earlier):
        return "guard:turns"
    pairs = zip(asked, stored, strict=True)
    reasons = (_first_reason(ours, theirs, RULES) for ours, theirs in pairs if not ours.is_same(theirs))
    return next((reason for reason in reasons if reason is not None), None)


def _first_reason(asked: Features, stored: Features, rules: Sequence[Rule]) -> str | None:
    for rule in rules:
        reason = rule(asked, stored)
        if reason is not None:
            return reason
    return None


def _attachment(asked: Features, stored: Features) -> str | None:
    return "guard:attachment" if asked.attachments != stored.attachments else None


def _number(asked: Features, stored: Features) -> str | None:
    """Another number, or the same numbers in another order or at other things."""
    in_order = asked.numbers == stored.numbers
    if not in_order and not _interchangeable(asked, stored):
        # "Grade 5" and "the fifth grade".
        return None if _places_counted(asked, stored) else "guard:number"
    if _crossed(asked, stored):
        return "guard:number_order"
    if asked.ordinals != stored.ordinals:
        return _ordinal(asked, stored)
    if in_order or likeness(asked, stored) < SAME_TEMPLATE:
        return None
    return "guard:number_order" if Counter(asked.numbers) == Counter(stored.numbers) else None


def _ordinal(asked: Features, stored: Features) -> str | None:
    """Another place in a row."""
    if _other_place(asked, stored) or _other_place(stored, asked):
        return "guard:number"
    if likeness(asked, stored) < SAME_TEMPLATE:
        return None
    return "guard:number_order" if Counter(asked.ordinals) == Counter(stored.ordinals) else "guard:number"


def _other_place(asked: Features, stored: Features) -> bool:
    """Whether ``asked`` names a place that ``stored`` neither names nor counts to, other than those that lists use."""
    return any(place > LISTED and place not in stored.ordinals + stored.numbers for place in asked.ordinals)


def _places_counted(asked: Features, stored: Features) -> bool:
    """Whether both say the same numbers, and one of them as a place in a row what the other counts."""
    if Counter(asked.numbers + asked.ordinals) != Counter(stored.numbers + stored.ordinals):
        return False
    return not _crossed(asked, stored) and are_free(asked, stored)


def _interchangeable(asked: Features, stored: Features) -> bool:
    """Whether the two say the same numbers, but for what one of them says twice or counts itself."""
    if asked.amounts - stored.amounts and stored.amounts - asked.amounts:
        return False  # most pairs: each has a number that the other lacks
    ours, theirs = Counter(asked.numbers), Counter(stored.numbers)
    extra, missing = ours - theirs, theirs - ours
    return not (extra and missing) and _spare(extra, asked, stored) and _spare(missing, stored, asked)


def _spare(extra: Counter[Number], features: Features, other: Features) -> bool:
    """Whether the numbers that ``other`` lacks change nothing: said twice here, or counting what is listed."""
    if not extra:
        return True
    if len(features.words) <= FEW_WORDS:
        # "In an hour" is "in 1 hour".
        return extra.keys() == {1} and (1 in features.units or other.says_one)
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
    if asked.dates - _PRESENT == stored.dates - _PRESENT:
        return None
    # A long text may name a day that its paraphrase leaves out.
    one_sided = asked.dates < stored.dates or asked.dates > stored.dates
    return None if one_sided and are_free(asked, stored) else "guard:date"


def _operator(asked: Features, stored: Features) -> str | None:
    """Other operators, or the same in another order: "2 + 3 * 4". What is compared may stand in either."""
    ours, theirs = asked.operators, stored.operators
    if ours == theirs:
        return None
    is_compared = COMPARED in asked.content or COMPARED in stored.content
    return None if is_compared and Counter(ours) == Counter(theirs) else "guard:operator"


def _symbol(asked: Features, stored: Features) -> str | None:
    """Other emoji or signs, a smiley at the end among them: "my results 😭" asks for another answer."""
    return "guard:symbol" if asked.symbols != stored.symbols else None


def _unspaced(asked: Features, stored: Features) -> str | None:
    """Anything else in a script without blanks, where a whole sentence is one "word"."""
    return "guard:wording" if asked.unspaced != stored.unspaced else None


def _token(asked: Features, stored: Features) -> str | None:
    """Identifiers, paths, versions, times or quotations that each text has and the other lacks."""
    if _quotes_lacking(asked, stored) and _quotes_lacking(stored, asked):
        return "guard:quote"
    if _rewritten(asked, stored) or _rewritten(stored, asked):
        return "guard:quote"
    lacking = _lacking(asked, stored), _lacking(stored, asked)
    # A version, time, address or "-x" that only one text has is another question; an "os.path" may be left unsaid.
    telling = any(name[0] == "-" or any(map(str.isdigit, name)) for names in lacking for name in names)
    return "guard:token" if telling or all(lacking) else None


def _quotes_lacking(asked: Features, stored: Features) -> bool:
    quotes = asked.written.quotes
    return quotes != stored.written.quotes and not all(_quoted(text, stored) for text in quotes)


def _quoted(text: str, other: Features) -> bool:
    """Whether ``other`` has the quotation, with its marks or without."""
    if text in other.written.quotes:
        return True
    letters = _PUNCTUATION.sub("", text)
    return letters.isalnum() and letters.lower() in other.squashed


def _rewritten(asked: Features, stored: Features) -> bool:
    """Whether ``stored`` has a quotation of ``asked``, but in other letters, or as other code: "HELLO", "hello"."""
    return any(_is_rewritten(text, asked, stored) for text in asked.written.quotes - stored.written.quotes)


def _is_rewritten(text: str, asked: Features, stored: Features) -> bool:
    letters = unquoted(text).lower()
    twins = stored.written.quotes_by_letters.get(letters)
    if twins is None:
        return letters in stored.squashed and unquoted(text) not in stored.written.run
    is_code = text in asked.written.codes and letters in stored.written.code_letters
    return is_code or quoted(text) not in twins


def _code(asked: Features, stored: Features) -> str | None:
    """Other code, other brackets or signs in a formula, or the same ones at other words."""
    ours, theirs = asked.written, stored.written
    if ours.blocks != theirs.blocks:
        return "guard:quote"
    if asked.searches and stored.searches:
        return None  # what stands there is the search's own
    if ours.formal != theirs.formal or ours.layout != theirs.layout:
        return "guard:symbol"
    if asked.words != stored.words:
        return None
    # Nothing but the signs tells these texts apart. What is said by the way may stand in brackets or not.
    moved = ours.asides and theirs.asides and ours.asides != theirs.asides
    return "guard:symbol" if moved or ours.places != theirs.places else None


def _case(asked: Features, stored: Features) -> str | None:
    """A word that is another in capitals ("WHO"), or little words that are what is asked of ("the AND function")."""
    ours, theirs = asked.written, stored.written
    if ours.cased != theirs.cased:
        other = {word.lower() for word in theirs.cased - ours.cased}
        if any(word.lower() in other for word in ours.cased - theirs.cased):
            return "guard:entity"
    if (ours.stressed or theirs.stressed) and _other_keywords(ours, theirs):
        return "guard:entity"
    return "guard:quote" if ours.material and theirs.material and ours.material != theirs.material else None


def _other_keywords(ours: Written, theirs: Written) -> bool:
    """Whether a little word in capitals stands in only one text, and is a key word or has another in its place."""
    lacking, missing = ours.stressed - theirs.said, theirs.stressed - ours.said
    return bool((lacking and missing) or ours.keywords & lacking or theirs.keywords & missing)


def _lacking(asked: Features, stored: Features) -> frozenset[str]:
    """The names of ``asked`` that ``stored`` has in no spelling: "node.js" is "nodejs"."""
    return frozenset(
        name for name in asked.names - stored.names if name[0] == "-" or letters_of(name) not in stored.spellings
    )


def _polarity(asked: Features, stored: Features) -> str | None:
    if not _against(asked, stored, _NONE) or are_free(asked, stored):
        return None
    return None if _cancels(asked, stored) or is_turned(asked, stored) else "guard:polarity"


def _against(asked: Features, stored: Features, but: frozenset[str]) -> bool:
    """Whether each text has a word against the other's, not counting those of ``but``."""
    ours, theirs = asked.opposites - stored.opposites - but, stored.opposites - asked.opposites - but
    return any(not opposites.OPPOSITES[word].isdisjoint(theirs) for word in ours)


def _cancels(asked: Features, stored: Features) -> bool:
    """Whether one text denies what the other says by the opposite: "not open", "closed"."""
    return (asked.negations > 0) != (stored.negations > 0) and _against(asked, stored, opposites.NEGATIONS | {"with"})


def _negation(asked: Features, stored: Features) -> str | None:
    if (asked.negations > 0) == (stored.negations > 0) or are_free(asked, stored) or _cancels(asked, stored):
        return None
    affirmed, denied = (asked, stored) if stored.negations else (stored, asked)
    # "It was refused" may stand for "it was not accepted".
    return None if affirmed.faults - denied.faults else "guard:negation"


def _question(asked: Features, stored: Features) -> str | None:
    if {asked.question, stored.question} in WAYS:
        return None
    kinds = {asked.question, stored.question}
    if kinds == {"amount", "when"} and "wait" in {asked.sought_time, stored.sought_time}:
        # "How long does it take", "when will it come".
        return "guard:question" if "" in {asked.sought_time, stored.sought_time} else None
    differ = len(kinds) == 2 and kinds.isdisjoint({"", "what"})
    if kinds in WHAT_OR_OTHER and asked.asked_by == stored.asked_by and asked.asked_by in {"did", "does", "do"}:
        # "What did he win", "when did he win".
        differ = True
    return "guard:question" if differ and not are_free(asked, stored) else None


def _direction(asked: Features, stored: Features) -> str | None:
    turned = is_turned(asked, stored) and _against(asked, stored, _NONE)
    return None if turned else other_direction(asked, stored)


def _category(asked: Features, stored: Features) -> str | None:
    """Another country, language, system, ..."""
    for category, members in asked.categories.items():
        theirs = stored.categories.get(category)
        if theirs is None or theirs == members:
            continue
        # A long text may say "they" where its paraphrase names some of them again.
        if not ((members < theirs or theirs < members) and are_free(asked, stored)):
            return "guard:category"
    return None


def _tense(asked: Features, stored: Features) -> str | None:
    """The same words, but of another time: "is it open", "was it open"."""
    tenses = {asked.tense, stored.tense}
    # What is and what will be is asked for alike.
    differ = "past" in tenses or tenses == {"allowed", "required"}
    differ = differ and len(tenses) == 2 and "" not in tenses
    if not differ or len(asked.words) != len(stored.words) or asked.content != stored.content:
        return None
    return "guard:tense"


RULES: tuple[Rule, ...] = (
    _attachment,
    _number,
    _unit,
    _date,
    _operator,
    _symbol,
    _unspaced,
    _token,
    _polarity,
    _negation,
    _question,
    _category,
    _direction,
    other_connector,
    sides_changed,
    roles_changed,
    persons_changed,
    other_letters,
    _code,
    _case,
    _tense,
    other_order,
)
FACTS: tuple[Rule, ...] = (
    *(_number, _unit, _date, _operator, _token, _polarity, _negation, _category, _direction),
    *(sides_changed, roles_changed, other_letters, _code, _case, other_order),
)
"""Those that make another statement too, not only another question."""


def contradiction(one: Features, other: Features) -> str | None:
    """The first reason why two statements in much the same words do not say the same, or None."""
    return _first_reason(one, other, FACTS)
