"""Two answers that cannot both be right are found by the sentence that contradicts."""

from __future__ import annotations

import pytest

from stratarouter_runtime.cache.statements import contradiction, sentences


@pytest.mark.parametrize(
    ("kept", "fresh", "reason"),
    [
        ("You can return the item.", "You cannot return the item.", "guard:negation"),
        ("Take it before meals.", "Take it after meals.", "guard:polarity"),
        ("This plan includes dental coverage.", "This plan excludes dental coverage.", "guard:polarity"),
        ("It leaves from Paris to London.", "It leaves from London to Paris.", "guard:direction"),
        ("The store opens on Monday.", "The store opens on Tuesday.", "guard:date"),
        ("The minimum age is eighteen.", "The minimum age is twenty-one.", "guard:number"),
        ("The best answer is option A.", "The best answer is option B.", "guard:entity"),
        ("The capital of Australia is Canberra.", "The capital of Australia is Sydney.", "guard:entity"),
        ("Yes.", "No.", "guard:polarity"),
    ],
)
def test_one_sentence_against_another(kept: str, fresh: str, reason: str) -> None:
    assert contradiction(kept, fresh) == reason
    assert contradiction(fresh, kept) == reason


@pytest.mark.parametrize(
    ("kept", "fresh"),
    [
        ("Yes, you can return it within 30 days.", "You may return it within 30 days, yes."),
        ("The capital of Australia is Canberra.", "Canberra is Australia's capital."),
        ("Heat speeds up the reaction.", "The reaction gets faster with heat."),
        ("No, the deposit is not refundable.", "Unfortunately the deposit cannot be refunded."),
        ("", "Anything."),
        ("", ""),
    ],
)
def test_the_same_in_other_words_is_no_contradiction(kept: str, fresh: str) -> None:
    assert contradiction(kept, fresh) is None
    assert contradiction(fresh, kept) is None


STEPS = "Open the app. Choose Security.\n- Tap on your card.\nYou can freeze the card at any time. It takes a minute."


def test_the_sentence_that_contradicts_is_found_among_others() -> None:
    changed = STEPS.replace("You can freeze", "You cannot freeze")
    assert contradiction(STEPS, f"Sure! {changed}") == "guard:negation"
    assert contradiction(f"Sure! {changed}", STEPS) == "guard:negation"


def test_sentences_that_share_few_words_are_not_held_against_each_other() -> None:
    assert contradiction(STEPS, f"{STEPS} Your money is not lost.") is None
    assert contradiction(STEPS, "\n".join(reversed(sentences(STEPS)))) is None


def test_sentences_end_at_marks_and_lines() -> None:
    assert sentences("One. Two!\n\n- three\n是的。不是。 v1.2 is out?") == [
        "One.",
        "Two!",
        "- three",
        "是的。",
        "不是。",
        "v1.2 is out?",
    ]


def test_a_long_answer_is_read_from_its_beginning_alone() -> None:
    many = "\n".join(f"Line {'x' * number} is here" for number in range(100))
    assert contradiction(f"{many}\nYou can go.", f"{many}\nYou cannot go.") is None
    assert contradiction("You can go. " + "a" * 1001, "You cannot go. " + "b" * 1001) == "guard:negation"
