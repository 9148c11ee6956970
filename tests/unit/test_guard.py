"""The guard refuses what embeddings blur and lets paraphrases through."""

from __future__ import annotations

import csv
import json
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.cache.features import features
from stratarouter_runtime.cache.guard import LENIENT, MAX_CHARS, STRICT, RuleGuard, create_guard
from stratarouter_runtime.cache.normalise import conversation_text


@pytest.mark.parametrize(
    ("reason", "asked", "stored"),
    [
        ("guard:number", "what is 2+2", "what is 2+3"),
        ("guard:number", "download TensorFlow 2.12 wheels", "download TensorFlow 2.13 wheels"),
        ("guard:number", "price of the iphone 16", "price of the iphone"),
        ("guard:number", "convert twenty five miles", "convert twenty six miles"),
        ("guard:number", "what is 5% of 80", "what is 5 of 80"),
        ("guard:number_order", "subtract 5 from 8", "subtract 8 from 5"),
        ("guard:unit", "convert 5 km", "convert 5 miles"),
        ("guard:unit", "what does $20 buy", "what does €20 buy"),
        ("guard:unit", "is 5 mW much", "is 5 MW much"),
        ("guard:date", "flights in June", "flights in July"),
        ("guard:date", "weather on Monday", "weather on Tuesday"),
        ("guard:date", "weather today", "weather tomorrow"),
        ("guard:operator", "what is a * b", "what is a + b"),
        ("guard:token", "what is my_var", "what is my_other"),
        ("guard:token", "docs of os.path", "docs of os.environ"),
        ("guard:token", "is 1.2.34 out", "is 1.23.4 out"),
        ("guard:token", "read https://a.com/1/23", "read https://a.com/12/3"),
        ("guard:token", "the 10:30 train", "the 1:03 train"),
        ("guard:token", "sort in C++", "sort in C#"),
        ("guard:substitution", "an angle of 20 degrees", "an angle of 20"),
        ("guard:quote", "define 'affect'", "define 'effect'"),
        ("guard:polarity", "how to enable dark mode", "how to disable dark mode"),
        ("guard:polarity", "events before the war", "events after the war"),
        ("guard:polarity", "coffee with milk", "coffee without milk"),
        ("guard:polarity", "how to increase my limit", "how to decrease my limit"),
        ("guard:polarity", "is the light on", "is the light off"),
        ("guard:negation", "can I eat raw eggs", "can't I eat raw eggs"),
        ("guard:question", "who invented the telephone", "when was the telephone invented"),
        ("guard:category", "capital of France", "capital of Spain"),
        ("guard:category", "sort a list in Python", "sort a list in Java"),
        ("guard:entity", "who is the wife of Obama", "what did Trump say about taxes"),
        ("guard:direction", "flights from Lisbon to Oslo", "flights from Oslo to Lisbon"),
        ("guard:direction", "convert usd to eur", "convert eur to usd"),
        ("guard:direction", "is gold heavier than lead", "is lead heavier than gold"),
        ("guard:order", "man bites dog", "dog bites man"),
        ("guard:substitution", "how do I cancel my order", "how do I cancel my subscription"),
        ("guard:insertion", "sort python list", "sort nested python list"),
        ("guard:direction", "split a monolith into services", "split services into a monolith"),
        ("guard:polarity", "a formal letter to a landlord", "an informal letter to a landlord"),
        ("guard:polarity", "pesto with nuts", "nut-free pesto"),
        ("guard:question", "who killed Hector", "who did Hector kill"),
        ("guard:number", "the first president of the USA", "the second president of the USA"),
        ("guard:number", "a dozen eggs", "two dozen eggs"),
        ("guard:date", "sales this month", "sales last month"),
        ("guard:category", "temperature in Celsius for Oslo", "temperature in Oslo (°F)"),
        ("guard:entity", "population of New York City", "population of New York State"),
        ("guard:direction", "books by Stephen King", "books about Stephen King"),
        ("guard:direction", "how do I install pip", "how do I install with pip"),
        ("guard:order", "did Anna lend Ben her car", "did Ben lend Anna his car"),
        ("guard:tense", "is the shop open", "was the shop open"),
        ("guard:tense", "can I apply online", "must I apply online"),
        ("guard:question", "what did Einstein win", "when did Einstein win"),
        ("guard:polarity", "do all birds migrate", "do most birds migrate"),
        ("guard:token", "release notes of 2.1", "release notes of 2.10"),
        ("guard:token", "what does grep -r do", "what does grep -R do"),
        ("guard:unit", "are there trains at 8 am", "are there trains at 8 pm"),
        ("guard:entity", "are you open on Christmas Eve", "are you open on New Year's Eve"),
        ("guard:direction", "can I call you", "can you call me"),
        ("guard:category", "send a GET request with curl", "send a PUT request with curl"),
        ("guard:polarity", "what time is check-in", "what time is check-out"),
        ("guard:negation", "physical cards", "non-physical cards"),
        ("guard:substitution", "a for loop in C", "a while loop in C"),
        ("guard:question", "how long is the tunnel", "when is the tunnel open"),
    ],
)
def test_what_embeddings_blur_is_refused_both_ways(reason: str, asked: str, stored: str) -> None:
    guard = create_guard()
    assert guard.differs(asked, stored) == reason
    assert guard.differs(stored, asked) is not None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("What is the capital of France?", "capital of france"),
        ("What is the capital city of Canada?", "Capital of Canada"),
        ("how do I delete a branch", "How can I remove a branch?"),
        ("what is half of 80", "what is 50% of 80"),
        ("a trip of twenty-five kilometres", "a trip of 25 km"),
        ("what is two thirds of 9", "what is 2/3 of 9"),
        ("1,000 dollars a month", "$1000 a month"),
        ("2 million people", "2,000,000 people"),
        ("he sells eggs for 2 dollars per dozen", "he sells eggs for $2 for each dozen"),
        ("flights from Lisbon to Oslo in June", "June flights from Lisbon to Oslo"),
        ("how do I use Node.js", "how to use NodeJS"),
        ("my card does not work", "my card is not working"),
        ("films by Nolan", "movies by Nolan"),
        ("favourite colours of cats", "favorite colors of cats"),
        ("why did Trump win", "why did Donald Trump win"),
        ("papers on retrieval augmented generation", "papers on RAG"),
        ("a half-hour walk", "a 30 minute walk"),
        ("four decades of work", "40 years of work"),
        ("why isn't my card working", "my card is broken"),
        ("is gold heavier than lead", "is lead lighter than gold"),
        ("where can I change my PIN", "how do I change my PIN"),
        ("would you mind telling me how to tie a tie", "how do I tie a tie"),
        ("I'd like to get rid of ants", "how do I remove ants"),
        ("set an alarm for 3 May", "set an alarm for May 3rd"),
        ("what is two plus two", "what is 2 + 2"),
        ("sales of the previous month", "sales of last month"),
        ("release notes of version 2.1", "release notes of v2.1"),
        ("cook for one hour", "cook for 1 hour"),
        ("do you accept Visa or Mastercard", "do you accept Mastercard or Visa"),
        ("how do I add a user", "adding a user"),
        ("how long do refunds take", "when will I get my refund"),
        ("what caused 'no module named requests'", "what caused no module named requests"),
        ("rent of a one bedroom flat", "rent of a 1 bedroom flat"),
        ("python memory leak in requests", "memory leak in python requests"),
        ("in:title dark mode css", "css dark mode in:title"),
        ("how do I make a payment abroad", "paying in other countries"),
        ("I'm having trouble logging in", "I can't log in"),
        ("how to tie a bow tie", "tying a bow tie"),
        ("restuarant with a terrace", "restaurant with a terrace"),
    ],
)
def test_a_paraphrase_passes(asked: str, stored: str) -> None:
    guard = create_guard()
    assert guard.differs(asked, stored) is None
    assert guard.differs(stored, asked) is None


def test_the_less_alike_two_texts_are_the_less_their_words_may_differ() -> None:
    asked, stored = "posts with polls about remote work", "threads with surveys about remote work"
    guard = create_guard()
    assert guard.differs(asked, stored, 0.95) is None
    assert guard.differs(asked, stored, 0.81) == "guard:wording"


def test_texts_of_one_content_word_must_be_nearer_than_those_of_more() -> None:
    guard = create_guard()
    assert guard.differs("where can I use my card", "where can I get my card", 0.70) == "guard:wording"
    assert guard.differs("where can I use my card", "where can I get my card", 0.80) is None
    assert guard.differs("how do I reset my password", "what is the way to reset a password", 0.70) is None


def test_the_lenient_setting_lets_more_pass() -> None:
    asked, stored = "posts with polls about remote work", "threads with surveys about remote work"
    refused = {
        setting.name: create_guard(setting).differs(asked, stored, 0.80) is not None for setting in (STRICT, LENIENT)
    }
    assert refused == {"strict": True, "lenient": False}
    assert (STRICT.floor, STRICT.demand) >= (LENIENT.floor, LENIENT.demand)


def test_a_swapped_word_is_refused_however_alike_the_vectors() -> None:
    assert create_guard().differs("how do I cancel my order", "how do I cancel my flight", 0.99) == "guard:substitution"


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("does it include everything except dental", "does it include everything including dental"),
        ("read the book, then paint the wall", "read the book, then read the wall"),
    ],
)
def test_a_word_said_twice_that_stands_in_the_place_of_another_counts(asked: str, stored: str) -> None:
    # It passed for a mere repetition, and the word that it took the place of for one that was put in.
    assert create_guard().differs(asked, stored, 0.99) is not None
    assert create_guard().differs(stored, asked, 0.99) is not None


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("prednisone", "prednisolone"),
        ("hydroxyzine", "hydroxychloroquine"),
        ("chlorpromazine", "chlorpropamide"),
        ("chlorate", "chlorite"),
        ("phosphate", "phosphite"),
        ("Medicare", "Medicaid"),
        ("Instagram", "Instacart"),
        ("an international transfer", "an internal transfer"),
        ("the Austrian embassy", "the Australian embassy"),
        ("a university", "a universe"),
        ("a story", "a store"),
        ("a factory", "a factor"),
        ("a battery", "a batter"),
        ("a diary", "a dairy"),
        ("a desert", "a dessert"),
        ("an angel", "an angle"),
        ("the police", "the policy"),
        ("a contractor", "a contraction"),
        ("stationery", "stationary"),
        ("a computer", "a commuter"),
        ("a compliment", "a complement"),
        ("a complaint letter", "a compliant letter"),
        ("перевести деньги", "перевезти деньги"),
        ("المستشفى", "المستقبل"),
    ],
)
def test_words_that_begin_alike_are_no_forms_of_one_word(ours: str, theirs: str) -> None:
    # Five equal letters at the beginning, or two in another order, made any two words one.
    asked, stored = (f"what do I need to know of {words} for my exam" for words in (ours, theirs))
    assert create_guard().differs(asked, stored, 1.0) is not None
    assert create_guard().differs(stored, asked, 1.0) is not None


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("how do I calibrate a scale", "calibration of a scale"),
        ("how do I install a module", "installation of a module"),
        ("the vacuum settings", "the vacuuming settings"),
        ("how do I verify a number", "verification of a number"),
        ("is the plug compatible", "compatibility of the plug"),
        ("align the columns", "the alignment of the columns"),
        ("accomodation for students", "accommodation for students"),
    ],
)
def test_forms_and_spellings_of_one_word_pass(ours: str, theirs: str) -> None:
    assert create_guard().differs(ours, theirs, 0.95) is None
    assert create_guard().differs(theirs, ours, 0.95) is None


PROBLEM = (
    "Anna buys 16 apples and 4 pears at the market in town. She gives half of the apples to her brother, who lives "
    "next door, and two to a neighbour. How many apples does she have left at the end of the day?"
)
RETOLD = (
    "At the market Anna gets 16 apples as well as 4 pears. Her brother from the house beside hers is handed 50% of "
    "those apples, while two more go to somebody nearby. What quantity of apples remains in her hands that evening?"
)


def test_a_long_problem_told_in_other_words_passes_and_with_another_number_does_not() -> None:
    guard = create_guard()
    assert guard.differs(RETOLD, PROBLEM, 0.75) is None
    assert guard.differs(RETOLD.replace("16", "18"), PROBLEM, 0.99) == "guard:number"
    assert guard.differs(RETOLD.replace("two more", "three more"), PROBLEM, 0.99) == "guard:number"


def test_two_numbers_that_change_places_are_refused() -> None:
    swapped = PROBLEM.replace("16", "#").replace("4 pears", "16 pears").replace("#", "4")
    assert create_guard().differs(swapped, PROBLEM, 0.99) == "guard:number_order"


def test_another_history_is_refused_however_short_the_question() -> None:
    def talk(first: str) -> str:
        turns = ((("user", first)), ("assistant", "ok"), ("user", "and why?"))
        return conversation_text([{"role": role, "content": content} for role, content in turns])

    assert create_guard().differs(talk("tell me of cats"), talk("tell me of dogs")) == "guard:turns"
    assert create_guard().differs(talk("tell me of cats"), "and why?") == "guard:turns"


@pytest.mark.parametrize(
    ("first", "other"),
    [("Yes.", "Maybe."), ("This.", "That."), ("It is his arm.", "It is her arm."), ("I sell it.", "I sold it.")],
)
def test_little_words_of_earlier_turns_count(first: str, other: str) -> None:
    def talk(said: str) -> str:
        turns = (("user", "this or that, should I?"), ("assistant", said), ("user", "why?"))
        return conversation_text([{"role": role, "content": content} for role, content in turns])

    assert create_guard().differs(talk(first), talk(other), 1.0) == "guard:turns"
    assert create_guard().differs(talk(first), talk(first.rstrip(".").lower()), 1.0) is None


def test_another_image_is_refused() -> None:
    def about(url: str) -> str:
        parts = [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": url}}]
        return conversation_text([{"role": "user", "content": parts}])

    assert create_guard().differs(about("https://a/1"), about("https://a/2")) == "guard:attachment"


def test_a_text_longer_than_embedders_read_is_served_exactly_only() -> None:
    long = "word " * MAX_CHARS
    assert create_guard().differs(long + "a", long + "b") == "guard:length"
    assert create_guard().differs(long, long) is None


def _judged_s(words: int) -> float:
    """Processor time of judging two texts of so many words each, none in common: the least of five."""
    draw = random.Random(1)
    texts = [" ".join("".join(draw.choices("abcdefghijklmnop", k=6)) for _ in range(words)) for _ in range(2)]
    times: list[float] = []
    for _ in range(5):
        guard = create_guard()
        start = time.thread_time()
        assert guard.differs(texts[0], texts[1]) == "guard:wording"
        times.append(time.thread_time() - start)
    return min(times)


def test_long_texts_in_other_words_take_no_more_than_their_length() -> None:
    # Four times the words: sixteen times the work where each is compared with each other.
    assert _judged_s(1_000) < 10 * _judged_s(250)


def test_kept_features_are_bounded() -> None:
    guard = RuleGuard(kept_chars=100)
    for number in range(50):
        guard.differs(f"text number {number}", f"another text {number}")
    assert sum(map(len, guard._kept)) <= 100


LIFT = (
    "Bill starts on the 3rd floor of a tall house with his bags in both hands. He rides the elevator up to the floor "
    "that is equal to 4 times his starting floor plus 6. What floor is he on now?"
)
LEVEL = (
    "Bill begins on the third level of a high building, with luggage on either side. The lift takes him to the "
    "level that equals 4 times the level he began on plus 6. Which level is Bill currently on?"
)
JAR = (
    "Gunter asks three friends how many beans are in the jar. One says 80, and another says 20 more than half of that. "
    "{} says 25% more than the first one. What is the average of all these guesses?"
)
CAGES = (
    "Russell gives straw to the rodents. The rats in 3 cages get 6 pieces each, 10 hamsters get 5 pieces each, and {} "
    "get 20 pieces. With 160 pieces in all, how many rats are in each cage?"
)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (LEVEL, LIFT),
        (JAR.format("The third one"), JAR.format("A third")),
        ("In one hive live rabbits. " + CAGES.format("these"), CAGES.format("the rabbits beside them in their pen")),
    ],
)
def test_long_texts_may_tell_places_and_names_in_their_own_way(asked: str, stored: str) -> None:
    assert RuleGuard().differs(asked, stored) is None
    assert RuleGuard().differs(stored, asked) is None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (LEVEL.replace("third", "fourth"), LIFT),
        (LEVEL, LIFT.replace("3rd", "4th")),
        (JAR.format("A third"), JAR.format("A fourth")),
        ("is a third as many enough", "is a fourth as many enough"),
        (CAGES.format("the dogs"), CAGES.format("the rabbits")),
    ],
)
def test_other_places_and_names_stay_others(asked: str, stored: str) -> None:
    assert RuleGuard().differs(asked, stored) is not None
    assert RuleGuard().differs(stored, asked) is not None


@pytest.mark.parametrize(
    "text", ["1/0", "²", "½½", "3/4/5", "9" * 60, "5 / five / 0", "1,000,00", ".5.", "a.b.c.", "--"]
)
def test_odd_numbers_are_read_without_error(text: str) -> None:
    assert create_guard().differs(text, text + " x") is not None


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_is_judged_and_the_judgement_is_repeatable(asked: str, stored: str) -> None:
    assert RuleGuard().differs(asked, stored) == RuleGuard().differs(asked, stored)
    assert RuleGuard().differs(asked, asked) is None


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_another_number_is_always_refused(ours: int, theirs: int) -> None:
    reason = RuleGuard().differs(f"what is {ours} squared", f"what is {theirs} squared")
    assert (reason is None) == (ours == theirs)


def test_a_changed_number_in_a_word_problem_is_refused(bench_data: Path) -> None:
    lines = (bench_data / "gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines]
    guard, draw = RuleGuard(), random.Random(1)
    changed = [(text, _changed(text, draw)) for text in questions if re.search(r"\d", text)]
    assert len(changed) > 1000
    assert [pair for pair in changed if guard.differs(*pair) is None] == []


def _changed(text: str, draw: random.Random) -> str:
    match = draw.choice(list(re.finditer(r"\d+", text)))
    return f"{text[: match.start()]}{int(match[0]) + draw.randint(1, 9)}{text[match.end() :]}"


def test_near_misses_are_refused_far_more_often_than_paraphrases(bench_data: Path) -> None:
    guard = RuleGuard()
    refused: dict[str, list[bool]] = {"0": [], "1": []}
    with (bench_data / "langcache_pairs/chatgpt.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            texts = (row["sentence1"].replace("**", ""), row["sentence2"].replace("**", ""))
            refused[row["label"]].append(guard.differs(*texts) is not None)
    shares = {label: sum(found) / len(found) for label, found in refused.items()}
    assert shares["0"] > 0.68
    assert shares["1"] < 0.20


def test_features_of_a_turn_name_its_role() -> None:
    turns = features("\x1esystem\x1fBe brief\x1euser\x1fHi")
    assert [turn.role for turn in turns] == ["system", "user"]
