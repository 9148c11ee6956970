"""Reads labelled pairs of questions from CSV or JSON lines, for ``cache evaluate``. Knows no embedder.

In JSON lines a text may be a conversation: a list of messages with ``role`` and ``content``.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from stratarouter_runtime.cache.normalise import conversation_text
from stratarouter_runtime.errors import InvalidRecordError
from stratarouter_runtime.records import Vector

TEXT_COLUMNS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("query1", "query2"),
    ("text1", "text2"),
    ("prompt1", "prompt2"),
    ("asked", "stored"),
    ("query", "cached"),
    ("origin", "similar"),
    ("original", "paraphrase"),
    ("text_a", "text_b"),
    ("a", "b"),
)
"""Names of two text columns, in the order in which they are looked for."""

LABEL_COLUMNS = ("label", "is_duplicate", "duplicate", "same", "match", "paraphrase_label", "quality", "gold")
VECTOR_COLUMNS = (("vector1", "vector2"), ("embedding1", "embedding2"))
QUESTION_VECTOR_COLUMNS = ("vector", "embedding")
QUESTION_COLUMNS = ("question", "query", "prompt", "text")
ANSWER_COLUMNS = ("answer", "response", "completion")
FINAL_ANSWER = "####"
"""What stands behind the last of these is an answer's result, as GSM8K writes it."""

YES = frozenset({"1", "1.0", "true", "yes", "y", "same", "duplicate", "paraphrase"})
NO = frozenset({"0", "0.0", "-1", "false", "no", "n", "different", "not_duplicate", "not_paraphrase"})

REMEDY = "give two text columns and a label (--asked, --stored, --label), or the columns question and answer"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns to read; None: found by their usual names."""

    asked: str | None = None
    stored: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A question asked, one whose answer is kept, and whether that answer would serve.

    ``vectors``: both texts' vectors, shape (2, dimension), where the file has them.
    """

    asked: str
    stored: str
    same: bool
    vectors: Vector | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its answer's result; ``vector``: of shape (dimension,), where the file has it."""

    text: str
    answer: str
    vector: Vector | None = None


def read(path: Path, columns: Columns | None = None) -> list[Pair] | list[Question]:
    """The pairs of ``path``, or its questions where it is a set of questions and answers.

    Raises:
        InvalidRecordError: the file cannot be read, has no such columns, or a row lacks a text or a readable label.
    """
    rows = list(_rows(path))
    if not rows:
        raise InvalidRecordError(f"{path} has no rows", remedy=REMEDY)
    columns = columns or Columns()
    texts = _texts(columns, rows[0])
    label = columns.label or next((name for name in LABEL_COLUMNS if name in rows[0]), None)
    if texts is not None and label is not None:
        vectors = next((names for names in VECTOR_COLUMNS if names[0] in rows[0] and names[1] in rows[0]), None)
        pairs = [_pair(path, at, row, texts, label, vectors) for at, row in enumerate(rows, 1)]
        _check_lengths(path, [pair.vectors for pair in pairs])
        return pairs
    question = next((name for name in QUESTION_COLUMNS if name in rows[0]), None)
    answer = next((name for name in ANSWER_COLUMNS if name in rows[0]), None)
    if columns == Columns() and question is not None and answer is not None:
        vector = next((name for name in QUESTION_VECTOR_COLUMNS if name in rows[0]), None)
        questions = [_question(path, at, row, (question, answer), vector) for at, row in enumerate(rows, 1)]
        _check_lengths(path, [one.vector for one in questions])
        return questions
    raise InvalidRecordError(f"{path} has the columns {', '.join(rows[0])}: no labelled pairs", remedy=REMEDY)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRecordError(f"{path} cannot be read: {exc}", remedy="give a file of text in UTF-8") from exc
    if path.suffix.lower() in {".jsonl", ".ndjson", ".json"}:
        yield from _json_rows(path, text)
        return
    # A field may hold a long text: the parser's own limit is 128 kB.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    # Lines as the parser sees them: str.splitlines also ends one at signs that texts hold, such as U+2028.
    yield from csv.DictReader(StringIO(text, newline=""), delimiter=delimiter)


def _json_rows(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise InvalidRecordError(f"{path}, line {number}: {exc}", remedy="one JSON object a line") from exc
        if not isinstance(row, dict):
            raise InvalidRecordError(f"{path}, line {number}: no JSON object", remedy="one JSON object a line")
        yield row


def _texts(columns: Columns, row: Mapping[str, Any]) -> tuple[str, str] | None:
    if columns.asked is not None and columns.stored is not None:
        return columns.asked, columns.stored
    return next((names for names in TEXT_COLUMNS if names[0] in row and names[1] in row), None)


def _pair(
    path: Path,
    at: int,
    row: Mapping[str, Any],
    texts: tuple[str, str],
    label: str,
    vectors: tuple[str, str] | None,
) -> Pair:
    value = str(row.get(label)).strip().lower()
    if value not in YES | NO:
        raise InvalidRecordError(
            f"{path}, row {at}: {label} = {value!r} says neither same nor different", remedy=REMEDY
        )
    asked, stored = (_text(path, at, row, name) for name in texts)
    return Pair(asked, stored, value in YES, None if vectors is None else _vectors(path, at, row, vectors))


def _question(path: Path, at: int, row: Mapping[str, Any], names: tuple[str, str], vector: str | None) -> Question:
    text, answer = (_text(path, at, row, name) for name in names)
    return Question(text, _result(answer), None if vector is None else _vectors(path, at, row, (vector,))[0])


def _text(path: Path, at: int, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, list) and all(isinstance(message, dict) for message in value):
        value = conversation_text(value)
    if not isinstance(value, str) or not value.strip():
        raise InvalidRecordError(f"{path}, row {at}: no text in {name!r}", remedy=REMEDY)
    return value


def _vectors(path: Path, at: int, row: Mapping[str, Any], names: Sequence[str]) -> Vector:
    try:
        both = [json.loads(row[name]) if isinstance(row[name], str) else row[name] for name in names]
        found = np.asarray(both, dtype=np.float32)
    except (KeyError, ValueError, TypeError) as exc:
        raise InvalidRecordError(f"{path}, row {at}: {' and '.join(names)} are no lists of numbers: {exc}") from exc
    lengths = np.linalg.norm(found, axis=1, keepdims=True) if found.ndim == 2 else np.zeros(1)
    if not all(length > 0 and math.isfinite(length) for length in lengths.ravel()):
        raise InvalidRecordError(f"{path}, row {at}: {' and '.join(names)} are no vectors of one length")
    return np.asarray(found / lengths, dtype=np.float32)


def _check_lengths(path: Path, vectors: Sequence[Vector | None]) -> None:
    """Raises InvalidRecordError where not all rows' vectors are of one length: one embedder's are."""
    lengths = [0 if row is None else row.shape[-1] for row in vectors]
    at = next((at for at, length in enumerate(lengths, 1) if length != lengths[0]), None)
    if at is not None:
        raise InvalidRecordError(
            f"{path}, row {at}: vectors of {lengths[at - 1]} numbers, where row 1 has {lengths[0]}"
        )


def _result(answer: str) -> str:
    return " ".join(answer.rpartition(FINAL_ANSWER)[2].split())
