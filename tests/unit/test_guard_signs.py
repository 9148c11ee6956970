"""The guard reads signs, operators, emoji and other symbols, none of which is a word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.cache.features import features
from stratarouter_runtime.cache.guard import RuleGuard, create_guard


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (
            "what do I wear if the forecast says -4 degrees Celsius?",
            "what do I wear if the forecast says 4 degrees Celsius",
        ),
        ("what do I wear when it is -5 degrees outside", "what do I wear when it is 5 degrees outside"),
        ("what is at latitude -15.5 and longitude 35.2", "what is at latitude 15.5 and longitude 35.2"),
        ("what if my account balance is -100 dollars", "what if my account balance is 100 dollars"),
        ("what if my account balance is -$100", "what if my account balance is $100"),
        ("what if my account balance is $-100", "what if my account balance is $100"),
        ("what is 10^-3", "what is 10^3"),
        ("what is 1e-3", "what is 1e3"),
        ("solve it for x = -3", "solve it for x = 3"),
        ("solve it for x=-3", "solve it for x=3"),
        ("numbers between -10 and 10", "numbers between 10 and 10"),
        ("is (-2, 3) on the line", "is (2, 3) on the line"),
        ("the mean of (3, -5) and (2, 4)", "the mean of (3, 5) and (2, -4)"),
        ("the mean of 5 -3 2", "the mean of 5 3 -2"),
        ("what is 5--3", "what is 5-3"),
        ("what is -2½ times 3", "what is -1½ times 3"),
        ("what is \u22125 squared", "what is 5 squared"),
        ("what is \u20135 squared", "what is 5 squared"),
        ("what is -.5 squared", "what is .5 squared"),
        ("what is -½ squared", "what is ½ squared"),
        ("-5 degrees", "5 degrees"),
        ("what time is it at UTC -5:30", "what time is it at UTC 5:30"),
        ("its limit as x goes to -∞", "its limit as x goes to ∞"),
        ("what does kill -9 do", "what does kill 9 do"),
        ("what is -x squared", "what is x squared"),
        ("jaguar -car", "jaguar car"),
        ("list all orders with quantity ≥ 10", "list all orders with quantity ≤ 10"),
        ("list all orders with quantity >= 10", "list all orders with quantity <= 10"),
        ("list all orders with quantity ≥ 10", "list all orders with quantity > 10"),
        ("> 10 orders", "< 10 orders"),
        ("what if x ≠ 3", "what if x = 3"),
        ("what is √16", "what is 16"),
        ("what is ±5", "what is 5"),
        ("what is 10 \u2212 5", "what is 10 + 5"),
        ("is !x true", "is x true"),
        ("!x", "x"),
        ("what is !!x", "what is !x"),
        ("what is 5!!", "what is 5!"),
        ("what is ~x", "what is x"),
        ("what does &x give", "what does x give"),
        ("what is 5 | 3", "what is 5 & 3"),
        ("what is 5!", "what is 5"),
        ("what is n!", "what is n"),
        ("what is x²", "what is x³"),
        ("the meaning of >", "the meaning of <"),
        ("the meaning of >", "the meaning of ="),
        ("\u00d7", "÷"),
        ("flights London→Tokyo", "flights Tokyo→London"),
        ("a mark of A+", "a mark of A"),
    ],
)
def test_another_sign_or_comparison_is_refused(asked: str, stored: str) -> None:
    # A sign counted between two numbers only: -5 degrees were answered as 5.
    guard = create_guard()
    assert guard.differs(asked, stored) is not None
    assert guard.differs(stored, asked) is not None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("what is \u22125 squared", "what is -5 squared"),
        ("what is \u20135 squared", "what is -5 squared"),
        ("what is 10 \u2212 5", "what is 10 - 5"),
        ("orders of quantity ≥ 10", "orders of quantity >= 10"),
        ("orders of quantity ≤ 10", "orders of quantity <= 10"),
        ("is x ≠ 3", "is x != 3"),
        ("my balance is -$100", "my balance is -100 dollars"),
        ("what is -50% of 80", "what is -½ of 80"),
        ("a growth of 5%-10%", "a growth of 5% - 10%"),
        ("salt & pepper", "salt and pepper"),
        ("how do I reset my PIN!", "how do I reset my PIN"),
        ("I can't log in, why can't I!", "I can't log in, why can't I"),
        ("what is 2+2=", "what is 2+2"),
        ("how do I set my PIN>", "how do I set my PIN?"),
        ("flights London→Tokyo", "flights London to Tokyo"),
    ],
)
def test_a_sign_may_be_written_in_several_ways(asked: str, stored: str) -> None:
    guard = create_guard()
    assert guard.differs(asked, stored) is None
    assert guard.differs(stored, asked) is None


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("pages 3-5", (3, 5)),
        ("pages 3\u20135", (3, 5)),
        ("on 2026-11-28", (2026, 11, 28)),
        ("is gpt-4 out", (4,)),
        ("what is covid-19", (19,)),
        ("call 555-0100", (555, 100)),
        ("call (555)-0100", (555, 100)),
        ("- 5 eggs", (5,)),
        ("x-5", (5,)),
        ("from 5°-10°", (5, 10)),
        ("from 5€-10€", (5, 10)),
    ],
)
def test_a_hyphen_behind_a_word_or_number_is_no_sign(text: str, numbers: tuple[int, ...]) -> None:
    assert features(text)[0].numbers == numbers


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("is a blood pressure of 120/80 normal", "is a blood pressure of 180/120 normal"),
        ("is the shop open on 1/2/2024", "is the shop open on 2/4/2024"),
        ("is the shop open on 3/6/2024", "is the shop open on 6/3/2024"),
        ("book a table for 4/2", "book a table for 6/3"),
        ("book a table for 4/2", "book a table for 2"),
        ("how do I count 3/4 time", "how do I count 6/8 time"),
        ("my mark was 10/10", "my mark was 5/5"),
        ("what is 6/3", "what is 3/6"),
        ("what is 1.5/3", "what is 2.5/5"),
        ("is 4 / 2 a whole number", "is 6 / 3 a whole number"),
    ],
)
def test_another_ratio_is_refused_though_the_quotient_is_the_same(asked: str, stored: str) -> None:
    # They were reduced: a date, a blood pressure and a bar of music each passed for another one.
    guard = create_guard()
    assert guard.differs(asked, stored, 1.0) is not None
    assert guard.differs(stored, asked, 1.0) is not None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("what is 1/2 of 80", "what is half of 80"),
        ("what is 3/4 of 80", "what is 75% of 80"),
        ("is the shop open on 4/2/2024", "is the shop open on 04/02/2024"),
        ("is 120/80 a normal blood pressure", "is a blood pressure of 120 / 80 normal"),
    ],
)
def test_a_ratio_may_be_written_in_several_ways(asked: str, stored: str) -> None:
    guard = create_guard()
    assert guard.differs(asked, stored) is None
    assert guard.differs(stored, asked) is None


PLACES = st.tuples(
    st.lists(
        st.sampled_from(("is", "at", "the", "balance", "3", "½", "5%", "$2", "two", "x", "=", "2-factor", "😀")),
        max_size=4,
    ),
    st.sampled_from(("", "(", "[", "x=", "10^", "2,", "1:", "<", "3*", "$", "\n")),
    st.sampled_from(
        ("", " degrees", "%", " dollars", " million", "/4", ")", ", 7", "½", " -1", " times", "th", ":30", ".5.1", "_0")
    ),
)


@given(
    PLACES,
    st.integers(1, 10**60).map(str)
    | st.decimals(min_value="0.01", max_value=10**9, places=2).map(str)
    | st.sampled_from(("1,000", ".5", "½", "1e5", "007", "$5", "∞")),
    st.sampled_from("-\u2212\u2013"),
)
def test_a_negated_number_is_always_refused(place: tuple[list[str], str, str], number: str, sign: str) -> None:
    words, before, after = place
    text = " ".join([*words, before])
    asked, stored = f"{text}{number}{after}", f"{text}{sign}{number}{after}"
    assert RuleGuard().differs(asked, stored, 1.0) is not None
    assert RuleGuard().differs(stored, asked, 1.0) is not None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("is a 🍎 healthy", "is a 🍌 healthy"),
        ("what does 🙏 mean", "what does 🖕 mean"),
        ("what is the capital of 🇫🇷", "what is the capital of 🇩🇪"),
        ("what is the capital of 🇸🇪", "what is the capital of 🇪🇸"),
        ("what is the capital of 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "what is the capital of 🏴󠁧󠁢󠁳󠁣󠁴󠁿"),
        (
            "a customer left the review 👍, how should we answer it?",
            "a customer left the review 👎, how should we answer it?",
        ),
        ("what does ☠ on a bottle mean", "what does ☢ on a bottle mean"),
        ("I got my results 😀", "I got my results 😭"),
        ("I got my results", "I got my results 😭"),
        ("how do I reset my password 🙂", "how do I reset my password"),
        ("is 🍎 heavier than 🍌", "is 🍌 heavier than 🍎"),
        ("who may use ©", "who may use ®"),
        ("what does ₩5000 buy", "what does ₽5000 buy"),
        ("what is 10⁻³", "what is 10³"),
        ("what is 5‰ of 80", "what is 5 of 80"),
        ("what is a 🫨", "what is a 🫪"),
        ("🍎", "🍌"),
    ],
)
def test_another_symbol_is_refused(asked: str, stored: str) -> None:
    # No token took them, so texts that differ in nothing else were alike.
    guard = create_guard()
    assert guard.differs(asked, stored) == "guard:symbol"
    assert guard.differs(stored, asked) == "guard:symbol"


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("what does ☠ mean", "what does ☠\ufe0f mean"),
        ("what does 👍 mean", "what does 👍🏽 mean"),
        ("what does 🙏 mean", "what is the meaning of 🙏"),
        ("water at 20°C", "water at 20 degrees C"),
        ("what does 5€ buy", "what does 5 euros buy"),
    ],
)
def test_a_symbol_in_another_form_passes(asked: str, stored: str) -> None:
    guard = create_guard()
    assert guard.differs(asked, stored) is None
    assert guard.differs(stored, asked) is None


# --- brackets, code and layout ---------------------------------------------------------------------------------


def fenced(code: str) -> str:
    return f"what does it print?\n```\n{code}\n```"


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("what is (2+3)*4", "what is 2+3*4"),
        ("calculate 2+3*4", "what is the value of (2+3)*4"),
        ("simplify (a + b) * c", "simplify a + (b * c)"),
        ("evaluate 8 / (2 * 4)", "evaluate (8 / 2) * 4"),
        ("what is 2 + 3 * 4", "what is 2 * 3 + 4"),
        ("what is sin(x)+1", "what is sin(x+1)"),
        ("is x in [0, 1)", "is x in [0, 1]"),
        ("is x in (0, 1]", "is x in (0, 1)"),
        ("the type of x = [1, 2]", "the type of x = (1, 2)"),
        ("the type of x = {1, 2}", "the type of x = (1, 2)"),
        ("what is (1, 2), 3", "what is 1, (2, 3)"),
        ("simplify (A or B) and C", "simplify A or (B and C)"),
        ("simplify (A or B) and C", "simplify A or B and C"),
        ("explain a[i][j] in C", "explain a[i[j]] in C"),
        ("what does f(g(x)) give", "what does f(g)(x) give"),
        ("what does x?.y mean in JS", "what does x.y mean in JS"),
        ("what does a ?? b give", "what does a b give"),
        ("what does x[1:2] return", "what does x[1,2] return"),
        ("how do I type {", "how do I type ["),
        ("what does :: mean in C++", "what does : mean in C++"),
        ("what does @property do", "what does property do"),
        ("what does #include do", "what does include do"),
        ("what does $x do in a shell", "what does x do in a shell"),
        ("what does \\n mean", "what does n mean"),
        ("what does x++ do", "what does ++x do"),
        ("is f'(x) = 0", "is f(x) = 0"),
        ("what does rm -rf ./ do", "what does rm -rf / do"),
        ("how do I write {x: 1}", "how do I write {x, 1}"),
        ("not (every user and admin) in scope", "(not every user) and admin in scope"),
        (fenced("for i in x:\n    y = i\n    print(y)"), fenced("for i in x:\n    y = i\nprint(y)")),
        (fenced("for(;;){}"), fenced("for(;){}")),
        ("fix it:\nif x:\n    y()\nz()", "repair it:\nif x:\n    y()\n    z()"),
    ],
)
def test_other_brackets_signs_and_layout_are_refused(asked: str, stored: str) -> None:
    # No token took them, so texts that differ in nothing else were alike.
    guard = create_guard()
    assert guard.differs(asked, stored, 1.0) is not None
    assert guard.differs(stored, asked, 1.0) is not None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("what is (2+3)*4", "calculate ( 2 + 3 ) * 4"),
        ("reset a password (the old one)", "reset a password, the old one"),
        ("can an employee (full time) take leave", "can a full time employee take leave"),
        ("how do I use print() in python", "how do I use print in python"),
        ("the derivative of sin(x)", "the derivative of sin x"),
        ("difference between == and === in JavaScript", "JavaScript === vs =="),
        ("my order #1234 is late", "my order 1234 is late"),
        ("is it ok ? thanks", "is it ok? thanks"),
        ("Hi! Can I return shoes (worn once)?", "can I return shoes (worn once)"),
        ("Step 1: how do I install python", "step 1, how do I install Python?"),
        ("the weather in Paris; is it raining", "the weather in Paris, is it raining"),
        ("in:title rate limit\\", "rate limit in:title"),
        (fenced("x = 1  \ny = 2"), fenced("x = 1\ny = 2").replace("what", "So what")),
    ],
)
def test_prose_in_brackets_and_marks_between_words_say_nothing(asked: str, stored: str) -> None:
    guard = create_guard()
    assert guard.differs(asked, stored, 0.97) is None
    assert guard.differs(stored, asked, 0.97) is None


# --- vowel signs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("what does दिन mean?", "what does दीन mean?"),
        ("भारत में सबसे बड़ा दिन कौन सा है?", "भारत में सबसे बड़ा दीन कौन सा है?"),
        ("how do I say कमल", "how do I say कमाल"),
        ("what does ไม่ mean", "what does ไม้ mean"),
        ("what does படம் mean", "what does பாடம் mean"),
    ],
)
def test_words_that_differ_in_a_vowel_sign_are_others(asked: str, stored: str) -> None:
    assert create_guard().differs(asked, stored, 0.99) is not None
    assert create_guard().differs(stored, asked, 0.99) is not None
    assert create_guard().differs(asked, asked + " please", 0.99) is None
