"""The guard reads letters that are names, and emoticons: "a" may be the article, ")" the end of a bracket."""

from __future__ import annotations

import pytest

from stratarouter_runtime.cache.guard import create_guard


@pytest.mark.parametrize(
    ("asked", "stored", "reason"),
    [
        ("route A to B", "route B to A", "guard:order"),
        ("what is the distance from a to b", "what is the distance from b to a", "guard:direction"),
        ("divide a by b", "divide b by a", "guard:order"),
        ("subtract a from b", "subtract b from a", "guard:order"),
        ("which vitamin is a", "which vitamin is", "guard:entity"),
        ("what is in plan a", "what is in plan", "guard:entity"),
        ("what is plan a?", "what is plan i?", "guard:entity"),
        ("is the hepatitis A vaccine safe", "is the hepatitis vaccine safe", "guard:entity"),
        ("is a + b the same as c", "is b + a the same as c", "guard:order"),
        ("he wrote me :)", "he wrote me :(", "guard:symbol"),
        ("are my results ok :-(", "are my results ok", "guard:symbol"),
        ("are my results ok :(.", "are my results ok :).", "guard:symbol"),
        ("what does :D mean", "what does :P mean", "guard:symbol"),
        ("what does ;) mean", "what does :) mean", "guard:symbol"),
        ("what does <3 mean", "what does </3 mean", "guard:symbol"),
        ("what is the value of G", "what is the value of g", "guard:entity"),
        ("what is the ASCII code of A", "the ascii code of a", "guard:entity"),
        ("what does K stand for", "what does k stand for", "guard:entity"),
        ("solve A + a = 5", "solve a + A = 5", "guard:entity"),
        ("what is the sha-256 hash of Hello", "give me the SHA-256 of hello", "guard:entity"),
        ("what does getData do", "what does GetData do", "guard:entity"),
    ],
)
def test_a_letter_or_a_face_that_says_something_else_is_refused(asked: str, stored: str, reason: str) -> None:
    guard = create_guard()
    assert guard.differs(asked, stored, 0.97) == reason
    assert guard.differs(stored, asked, 0.97) == reason


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("what is the difference between A and B", "what is the difference between B and A"),
        ("type a vs type b", "type b vs type a"),
        ("how do I sort a list in c", "in c, how do I sort a list"),
        ("how do I sort a list in c", "how do I sort list in c"),
        ("is there a difference between b and c", "is there any difference between b and c"),
        ("how do I reset my password :)", "how do I reset my password"),
        ("how do I reset my password :-)", "how do I reset my password ;)"),
        ("how do I reset my password :D?", "how do I reset my password?"),
        ("how do I reset a password (the old one:)", "how do I reset a password (the old one)"),
        ("Write A Story About Love", "write a story about love"),
        ("Is vitamin C good for you", "is vitamin c good for you"),
        ("what is the ASCII code of the letter Q", "the ASCII code of the letter Q please"),
        ("open a GitHub issue", "open a github issue"),
        ("It bit me. A dog did it, what now", "it bit me. a dog did it, what now"),
    ],
)
def test_an_article_or_a_smile_says_nothing(asked: str, stored: str) -> None:
    guard = create_guard()
    assert guard.differs(asked, stored, 0.97) is None
    assert guard.differs(stored, asked, 0.97) is None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("is he taller than she", "is she taller than he"),
        ("does he earn more than they do", "do they earn more than he does"),
        ("should he pay her rent", "should she pay his rent"),
        ("is his car faster than hers", "is her car faster than his"),
        ("who did he say she was", "who did she say he was"),
        ("is this better than that", "is that better than this"),
        ("it is bigger than that", "that is bigger than it"),
    ],
)
def test_who_changed_places_is_refused(asked: str, stored: str) -> None:
    guard = create_guard()
    assert guard.differs(asked, stored, 0.97) == guard.differs(stored, asked, 0.97) == "guard:direction"


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("my dog ate chocolate, is he in danger", "my dog ate chocolate, is she in danger"),
        ("how do I open my account", "how do you open your account"),
        ("does he like this", "does he like these"),
    ],
)
def test_another_person_in_the_same_place_asks_the_same(asked: str, stored: str) -> None:
    assert create_guard().differs(asked, stored, 0.97) is None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("パスワードを変更する方法", "パスワードを削除する方法"),
        ("我可以在三天内退款吗", "我可以在三天内不退款吗"),
        ("这种药可以和酒一起吃吗", "这种药可以和奶一起吃吗"),
        ("如何取消我的订单？", "如何取消我的会员？"),  # noqa: RUF001 - full-width
        ("환불받을수있나요", "환불받을수없나요"),
        ("환불 받을 수 있나요", "환불 받을 수 없나요"),
        ("第五回", "第六回"),
        ("what does 第五回 mean", "what does 第六回 mean"),
        ("ฉันสามารถขอเงินคืนได้ไหม", "ฉันสามารถขอเงินคืนไม่ได้ไหม"),
        ("請問,我的訂單,何時到貨 5 7", "請問,我的會員,何時到期 5 7"),
    ],
)
def test_scripts_without_blanks_must_be_the_same(asked: str, stored: str) -> None:
    # A whole sentence was one word there, and an equal beginning made it a form of the other.
    guard = create_guard()
    assert guard.differs(asked, stored, 1.0) is not None
    assert guard.differs(stored, asked, 1.0) is not None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("我可以在三天内退款吗？", "我可以在三天内退款吗"),  # noqa: RUF001 - full-width
        ("환불 받을 수 있나요", "환불받을 수 있나요?"),
        ("what does 第五回 mean?", "what is the meaning of 第五回"),
    ],
)
def test_scripts_without_blanks_may_differ_in_marks_and_blanks(asked: str, stored: str) -> None:
    guard = create_guard()
    assert guard.differs(asked, stored, 1.0) is None
    assert guard.differs(stored, asked, 1.0) is None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (r"what does \d match in a regex", r"what does \D match in a regex"),
        ("what does `ls -R` do", "what does `ls -r` do"),
        ("what does `a.b` mean", "what does `ab` mean"),
        ('make "HELLO" lower case', 'make "hello" lower case'),
        ('make "HELLO" lower case', "make hello lower case"),
        ('what is the md5 of "Hello"', 'what is the md5 of "hello"'),
        ("how do I polish furniture", "how do I Polish furniture"),
        ("who works at the WHO", "who works at the who"),
        ("what is a PET scan", "what is a pet scan"),
        ("did they tell the US", "did they tell us"),
        ("a file of 5 Tb", "a file of 5 TB"),
        ("what is in /Tmp/a", "what is in /tmp/a"),
        ("the AND function in Excel", "the OR function in Excel"),
        ("the AND function in Excel", "the function in Excel"),
        ("what does the SQL keyword IN do", "what does the SQL keyword AS do"),
        ("Translate to German: she has seen them", "Translate to German: we have seen them"),
        ("Translate into Spanish: I would like that", "Translate into Spanish: I would like this"),
        ("Correct the grammar: he have a dog", "Correct the grammar: she have a dog"),
    ],
)
def test_letters_whose_case_tells_and_words_that_are_the_matter_are_compared_as_written(
    asked: str, stored: str
) -> None:
    # Embedders that read no case find such texts the very same.
    guard = create_guard()
    assert guard.differs(asked, stored, 1.0) is not None
    assert guard.differs(stored, asked, 1.0) is not None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("Who is the president of the US?", "who's the president of the US"),
        ("WHO IS THE PRESIDENT OF FRANCE", "who is the president of France"),
        ("a file of 5 kB", "a file of 5 KB"),
        ('explain "The Great Gatsby"', "explain the great gatsby"),
        ("PLEASE HELP, how do I reset MY password", "how do I reset my password"),
        ("the IF function in Excel", "the if function in Excel"),
        ("Translate to German: good morning.", "translate to German: Good morning"),
        ("Question: what is the capital of France", "what is the capital of France"),
    ],
)
def test_other_capitals_say_nothing(asked: str, stored: str) -> None:
    guard = create_guard()
    assert guard.differs(asked, stored, 0.97) is None
    assert guard.differs(stored, asked, 0.97) is None
