"""``cache evaluate``: what is read, what is counted, what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stratarouter_runtime.cache.evaluate import THRESHOLDS, cosines, evaluate, nearest_pairs, score
from stratarouter_runtime.cache.guard import STRICT
from stratarouter_runtime.cache.normalise import conversation_text
from stratarouter_runtime.cache.pairs import Columns, Pair, Question, read
from stratarouter_runtime.cli.cache import app
from stratarouter_runtime.errors import ConfigurationError, InvalidRecordError

PAIRS = [
    Pair("what is the capital of France", "capital of France", same=True),
    Pair("how do I delete a branch", "how to remove a branch", same=True),
    Pair("is it free", "does it cost anything at all", same=True),
    Pair("flights in June", "flights in July", same=False),
    Pair("cats", "the history of steam engines", same=False),
]
SIMILARITIES = np.array([0.95, 0.9, 0.4, 0.97, 0.1], dtype=np.float32)


def test_right_wrong_and_missed_are_counted_by_hand() -> None:
    report = evaluate(PAIRS, SIMILARITIES, STRICT, threshold=0.85)
    assert (report.guarded.right, report.guarded.wrong, report.guarded.missed) == (2, 0, 1)
    assert report.guarded.precision == 1.0
    assert report.guarded.recall == pytest.approx(2 / 3)
    plain = next(plain for plain, _ in report.curve if plain.threshold == 0.85)
    assert (plain.right, plain.wrong, plain.missed) == (2, 1, 1)
    assert report.refusals == {"guard:date": (1, 0)}
    assert report.guard_us > 0


def test_the_plain_threshold_is_the_one_of_the_best_f1() -> None:
    report = evaluate(PAIRS, SIMILARITIES, STRICT)
    best = max(2 * plain.right / (2 * plain.right + plain.wrong + plain.missed) for plain, _ in report.curve)
    chosen = report.plain
    assert 2 * chosen.right / (2 * chosen.right + chosen.wrong + chosen.missed) == best


def test_a_higher_threshold_never_serves_more() -> None:
    report = evaluate(PAIRS, SIMILARITIES, STRICT)
    for side in (0, 1):
        served = [point[side].right + point[side].wrong for point in report.curve]
        assert served == sorted(served, reverse=True)
    assert [plain.threshold for plain, _ in report.curve] == list(THRESHOLDS)


def test_shares_of_nothing_are_none() -> None:
    nothing = score(np.array([0.1], np.float32), np.array([False]), np.array([True]), 0.9)
    assert (nothing.precision, nothing.recall) == (None, None)


def test_each_question_meets_its_nearest_other_one() -> None:
    questions = [Question("a", "1"), Question("b", "1"), Question("c", "2")]
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    pairs, found = nearest_pairs(questions, vectors)
    assert [(pair.asked, pair.stored, pair.same) for pair in pairs] == [
        ("a", "b", True),
        ("b", "a", True),
        ("c", "b", False),
    ]
    assert found.tolist() == pytest.approx([0.8, 0.8, 0.6])


def test_cosines_are_those_of_the_rows() -> None:
    ours, theirs = np.eye(2, dtype=np.float32), np.array([[1, 0], [1, 0]], dtype=np.float32)
    assert cosines(list(ours), list(theirs)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'sentence1,sentence2,label\n"x, y",z,1\np,q,0\n'),
        ("a.tsv", "question1\tquestion2\tis_duplicate\nx, y\tz\t1\np\tq\t0\n"),
        ("a.jsonl", '{"asked": "x, y", "stored": "z", "same": true}\n\n{"asked": "p", "stored": "q", "same": false}\n'),
    ],
)
def test_pairs_are_read_by_their_usual_names(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert read(path) == [Pair("x, y", "z", same=True), Pair("p", "q", same=False)]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1e"], ids=ascii)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=ascii)
def test_only_the_end_of_a_line_ends_a_row(tmp_path: Path, sign: str, end: str) -> None:
    """Texts copied from the web hold what Unicode calls a line's end; the row was cut there."""
    path = tmp_path / "a.csv"
    path.write_bytes(f'a,b,label{end}x{sign}y,"p{sign}q",1{end}'.encode())
    assert read(path) == [Pair(f"x{sign}y", f"p{sign}q", same=True)]


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,left,right,verdict\n1,x,y,yes\n", encoding="utf-8")
    assert read(path, Columns("left", "right", "verdict")) == [Pair("x", "y", same=True)]


def test_questions_and_answers_are_read_with_their_result(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "2+2", "answer": "2+2 is\\n#### 4"}\n', encoding="utf-8")
    assert read(path) == [Question("2+2", "4")]


def test_questions_may_bring_their_vectors(tmp_path: Path) -> None:
    path = tmp_path / "questions.csv"
    path.write_text('question,answer,embedding\n2+2,4,"[3.0, 4.0]"\n', encoding="utf-8")
    (question,) = read(path)
    assert isinstance(question, Question)
    assert question.vector is not None
    assert question.vector.tolist() == pytest.approx([0.6, 0.8])


def test_a_text_may_be_a_conversation(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "I bank with you"}, {"role": "user", "content": "where"}]
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"asked": turns, "stored": "where", "label": 0}), encoding="utf-8")
    (pair,) = read(path)
    assert isinstance(pair, Pair)
    assert pair.asked == conversation_text(turns)


PAIR = '{"a": "x", "b": "y", "label": 1, "vector1": [1, 0], "vector2": [1, 0]}\n'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "no rows"),
        ("a.csv", "x,y\n1,2\n", "no labelled pairs"),
        ("a.csv", "sentence1,sentence2,label\na,b,maybe\n", "row 1.*neither"),
        ("a.csv", "sentence1,sentence2,label\na,,1\n", "row 1: no text"),
        ("a.jsonl", "{\n", "line 1"),
        ("a.jsonl", "[1]\n", "no JSON object"),
        ("a.jsonl", '{"a": "x", "b": "y", "label": 1, "vector1": [1, 0], "vector2": [0]}\n', "row 1"),
        ("a.jsonl", '{"a": "x", "b": "y", "label": 1, "vector1": [0, 0], "vector2": [1, 0]}\n', "row 1"),
        ("a.jsonl", PAIR + PAIR.replace("[1, 0]", "[1, 0, 0]"), "row 2.*3 numbers.*row 1 has 2"),
        ("a.jsonl", PAIR + PAIR.replace("vector2", "other"), "row 2: vector1 and vector2"),
        ("a.csv", 'question,answer,vector\nx,1,"[1]"\ny,2,"[1, 0]"\n', "row 2.*2 numbers.*row 1 has 1"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRecordError, match=message):
        read(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecordError, match="cannot be read"):
        read(tmp_path / "none.csv")


@pytest.fixture
def pairs_with_vectors(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = []
    for pair, similarity in zip(PAIRS, SIMILARITIES, strict=True):
        second = [float(similarity), float(np.sqrt(1 - similarity**2))]
        rows.append({"a": pair.asked, "b": pair.stored, "label": int(pair.same), "vector1": [3, 0], "vector2": second})
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_the_json_has_exactly_the_promised_keys(pairs_with_vectors: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "--pairs", str(pairs_with_vectors), "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.output)
    keys = {"precision", "recall", "right", "wrong", "missed", "threshold"}
    assert set(printed) == {"plain", "guarded", "curve"}
    assert set(printed["plain"]) == set(printed["guarded"]) == keys
    assert printed["guarded"]["threshold"] == STRICT.floor
    assert (printed["guarded"]["right"], printed["guarded"]["wrong"]) == (2, 0)
    assert len(printed["curve"]) == len(THRESHOLDS)


def test_the_table_names_counts_refusals_and_the_guards_time(pairs_with_vectors: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "--pairs", str(pairs_with_vectors), "--threshold", "0.85"])
    assert result.exit_code == 0, result.output
    assert "with the guard, strict at 0.85: 2 right, 0 wrong, 1 missed, precision 1.000, recall 0.667" in result.output
    assert "guard:date: refused 1 wrong, 0 right" in result.output
    assert "us a candidate" in result.output


@pytest.mark.parametrize("options", [["--setting", "loose"], ["--asked", "a"]])
def test_options_that_make_no_sense_are_refused(pairs_with_vectors: Path, options: list[str]) -> None:
    result = CliRunner().invoke(app, ["evaluate", "--pairs", str(pairs_with_vectors), *options])
    assert isinstance(result.exception, ConfigurationError)


def test_a_missing_matplotlib_is_named_with_its_remedy(
    pairs_with_vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stratarouter_runtime.cli.cache.find_spec", lambda _name: None)
    options = ["evaluate", "--pairs", str(pairs_with_vectors), "--png", str(tmp_path / "x.png")]
    result = CliRunner().invoke(app, options)
    assert isinstance(result.exception, ConfigurationError)
    assert "pip install matplotlib" in result.exception.remedy
