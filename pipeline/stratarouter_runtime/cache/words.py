"""Brings single words to the forms that the guard compares: base forms, synonyms, fillers. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from stratarouter_runtime.cache import lexicon, opposites
from stratarouter_runtime.cache.categories import CATEGORIES
from stratarouter_runtime.cache.fillers import FILLERS
from stratarouter_runtime.cache.forms import BASE_FORMS

_OUR = re.compile(r"(?<=[bilnv])our(?=$|s$|ed$|ing$|ite|ful)")
_ISE = re.compile(r"is(?=(?:e|es|ed|ing|ation|er)$)")
UNIT_CATEGORIES = frozenset({"scale", "currency"})


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
    if word.endswith(("ies", "ied")) and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("ie") and len(word) > 4:
        return word[:-2] + "y"
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-2] if word.endswith(("sses", "shes", "ches", "xes")) else word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _one_spelling(word: str) -> str:
    """British spelling to American: "colour", "organise", "centre"."""
    if len(word) > 5 and "our" in word[2:]:
        word = _OUR.sub("or", word)
    return _ISE.sub("iz", word) if len(word) > 6 else word


@lru_cache(maxsize=32_768)
def is_filler(word: str) -> bool:
    """Whether the word carries no content of its own."""
    return word in FILLERS or canonical(word) in FILLERS or denies(word)


@lru_cache(maxsize=32_768)
def denies(word: str) -> bool:
    """Whether the word is a denial: "not", "never", "isn't"."""
    return word in opposites.NEGATIONS or word.endswith("n't")


@lru_cache(maxsize=32_768)
def opposed_forms(word: str) -> tuple[str, ...]:
    """The forms of ``word`` that have an opposite: "includes" and "including" are forms of "include"."""
    root = stem(word)
    base = f"{root}e"
    forms = (word, root, word.removesuffix("ly"), base if word.startswith(base) or word == f"{root}ing" else "")
    return tuple(form for form in dict.fromkeys(forms) if form in opposites.OPPOSITES)


@lru_cache(maxsize=32_768)
def content_key(word: str) -> str | None:
    """What a word adds to the content; None for a filler."""
    if is_filler(word):
        return None
    if CATEGORIES.get(word) in UNIT_CATEGORIES:
        return lexicon.UNITS.get(word, word)
    return canonical(lexicon.UNITS.get(word, word))


_STEMMED_SYNONYMS = {stem(word): canonical_word for word, canonical_word in lexicon.SYNONYMS.items()}
