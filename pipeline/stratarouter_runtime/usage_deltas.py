"""What a response means for the accounts, summed into small records (``usage-deltas``) and read back. Pure.

Money is in nano-dollars (a thousand-millionth of a US dollar) as integers: sums of floats would not agree to the cent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import field
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any, Literal, cast

from stratarouter_runtime import validation as check
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.records import Coordinates, Outbound, Response, UsageLine
from stratarouter_runtime.wire_results import dumps

NANO = 1_000_000_000
SURELY_NEAREST = 0.499
MINUTE_S = 60
MAX_RECEIPTS = 250
"""Of one delta: 250 of the longest request ids stay below a topic's default record size of 1 MiB."""
MAX_NAME_BYTES = 240
"""Of a route's or model's name in the accounts: tenant, route and model together must fit an index entry."""
MAX_ID_BYTES = 1200
"""Of a delta's id or lane: group, topic and numbers together have less. An index entry takes 2,700."""
MAX_COUNT = 2**53
"""Of one number in a delta, as nano-dollars nine million US dollars; a thousand such still fit a window's sum."""
MAX_SUM = 2**63 - 1
MAX_DEPTH = 8

ReceiptKind = Literal["paid", "coalesced", "error"]
KINDS = frozenset(("exact", "semantic", "paid", "coalesced", "error"))
RECEIPT_KINDS = KINDS - {"exact", "semantic"}

SUMS = (
    "requests",
    "ok",
    "errors",
    "paid",
    "exact",
    "semantic",
    "coalesced",
    "replayed",
    "unpriced",
    "input_tokens",
    "output_tokens",
    "saved_tokens",
    "paid_nano",
    "exact_nano",
    "semantic_nano",
    "coalesced_nano",
    "replayed_nano",
)
"""What is counted for each tenant, route and model. ``replayed``: a request id that was answered before, answered again
from the journal. ``unpriced``: answers whose price is unknown, so that their money is in no sum."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One response of ``execute`` by its request id, which an account takes once.

    ``nano_usd`` is what it cost (``paid``) or saved (``coalesced``); None: the price is unknown. ``code`` is the
    error's, None for an answer.
    """

    request_id: str
    kind: ReceiptKind
    nano_usd: int | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """The responses of one commit of one lane to one tenant, route and model.

    Attributes:
        id: the same whenever the same responses are counted: an account takes it once.
        lane: consumer group, topic and partition that the responses come from.
        epoch: when that lane was opened, in epoch milliseconds.
        first_offset: the lowest input offset counted here.
        last_offset: the highest.
        at_ms: when it was made, in epoch milliseconds; says the windows it counts in.
        tenant: whose requests these are.
        route: their route.
        model: the model that answered, empty for an error.
        sums: by the names in ``SUMS``, without the receipts.
        errors: error responses by code, without the receipts.
        receipts: responses that the journal knows too.
    """

    id: str
    lane: str
    epoch: int
    first_offset: int
    last_offset: int
    at_ms: int
    tenant: str
    route: str
    model: str
    sums: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    receipts: tuple[Receipt, ...] = ()


@lru_cache(maxsize=4096)
def nano(usd: float | None) -> int | None:
    """US dollars in nano-dollars, halves away from zero; None stays None. By the number's shortest decimal form, so
    that everybody who reads it from JSON comes to the same integer.
    """
    if usd is None:
        return None
    product = usd * NANO
    nearest = round(product)
    # A product of floats is off by a part in 10^16: below a thousand dollars that decides nothing but a near half.
    if product < 1e12 and abs(product - nearest) < SURELY_NEAREST:
        return nearest
    return int((Decimal(repr(float(usd))) * NANO).to_integral_value(ROUND_HALF_UP))


def kind_of_answer(verdict: str, role: str, *, attempted: bool, from_journal: bool) -> str:
    """What the call for an answer became, by the response's cache verdict, its role in a batch, whether it made an
    attempt of its own and whether it came out of the journal.
    """
    if verdict in {"exact", "semantic"} and not attempted:
        return verdict
    # A follower that is answered again from the journal has no role any more, but made no attempt of its own.
    return "coalesced" if role == "follower" or (from_journal and not attempted) else "paid"


def line_of(response: Response, processor: str) -> UsageLine:
    """What ``response``, as ``processor`` answered it, means for the accounts."""
    kind: str = "error"
    if response.model is not None:
        kind = kind_of_answer(
            response.cache.kind,
            response.batch.role,
            attempted=bool(response.attempts),
            from_journal=response.from_journal,
        )
    return UsageLine(
        tenant=response.tenant,
        route=_clipped(response.route_id),
        model=_clipped(response.model or ""),
        kind=kind,
        request_id=response.request_id if processor == "execute" else None,
        nano_usd=nano(response.cost_usd if kind == "paid" else response.saved_usd),
        input_tokens=response.usage.input_tokens,
        output_tokens=response.usage.output_tokens,
        code=None if response.error is None else response.error.code,
        source=response.source,
    )


def _clipped(name: str) -> str:
    if len(name) <= MAX_NAME_BYTES // 4 and "\x00" not in name:
        return name
    return name.replace("\x00", "\ufffd").encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def count(
    sums: dict[str, int], kind: str, nano_usd: int | None, tokens: tuple[int, int], *, ok: bool, times: int = 1
) -> None:
    """Add ``times`` responses of ``kind`` to ``sums``; ``tokens`` in and out, of each."""
    _add(sums, "requests", times)
    _add(sums, "ok" if ok else "errors", times)
    if kind == "error":
        return
    _add(sums, kind, times)
    if nano_usd is None:
        _add(sums, "unpriced", times)
    else:
        _add(sums, f"{kind}_nano", nano_usd * times)
    if kind == "paid":
        _add(sums, "input_tokens", tokens[0] * times)
        _add(sums, "output_tokens", tokens[1] * times)
    else:
        _add(sums, "saved_tokens", (tokens[0] + tokens[1]) * times)


def _add(sums: dict[str, int], name: str, number: int) -> None:
    sums[name] = sums.get(name, 0) + number


def count_receipt(sums: dict[str, int], receipt: Receipt, *, first: bool) -> None:
    """Add ``receipt`` to ``sums``; with ``first`` False, its request id was counted before and costs nothing again."""
    tokens = (receipt.input_tokens, receipt.output_tokens)
    kind = receipt.kind if first or receipt.kind == "error" else "replayed"
    count(sums, kind, receipt.nano_usd, tokens, ok=receipt.code is None)


# --- deltas ----------------------------------------------------------------------------------------------------


class DeltaWriter:
    """Sums what one lane commits.

    Args:
        topic: where deltas go.
        lane: consumer group, topic and partition.
        epoch: when the lane was opened, in epoch milliseconds.
        singly: a delta for each response, with an id that a repetition has too: for a lane whose commits may repeat.
    """

    def __init__(self, topic: str, lane: str, epoch: int, *, singly: bool) -> None:
        self._topic = topic
        self._lane = lane
        self._epoch = epoch
        self._singly = singly

    def write(self, lines: Iterable[tuple[int, UsageLine]], at_ms: int) -> list[Outbound]:
        """The deltas of ``lines`` (each with its input offset) as records. All go to one partition, so that a
        transaction spans only one more.
        """
        key = self._lane.encode()
        return [Outbound(self._topic, key, encode(delta)) for delta in self.sum_up(lines, at_ms)]

    def sum_up(self, lines: Iterable[tuple[int, UsageLine]], at_ms: int) -> list[Delta]:
        """One delta for each tenant, route and model, more where there are over ``MAX_RECEIPTS`` lines."""
        groups: dict[tuple[str, str, str], list[tuple[int, UsageLine]]] = {}
        for offset, line in lines:
            groups.setdefault((line.tenant, line.route, line.model), []).append((offset, line))
        size = 1 if self._singly else MAX_RECEIPTS
        return [
            self._delta(group[start : start + size], at_ms)
            for group in groups.values()
            for start in range(0, len(group), size)
        ]

    def _delta(self, group: Sequence[tuple[int, UsageLine]], at_ms: int) -> Delta:
        offsets = [offset for offset, _ in group]
        lines = [line for _, line in group]
        summed = [line for line in lines if line.request_id is None or line.kind not in RECEIPT_KINDS]
        sums: dict[str, int] = {}
        # Many answers cost the same: each sort is added once.
        alike = Counter((o.kind, o.nano_usd, o.input_tokens, o.output_tokens, o.code is None) for o in summed)
        for (kind, nano_usd, tokens_in, tokens_out, ok), times in alike.items():
            count(sums, kind, nano_usd, (tokens_in, tokens_out), ok=ok, times=times)
        return Delta(
            id=self._id(min(offsets), at_ms, lines[0].source),
            lane=self._lane,
            epoch=self._epoch,
            first_offset=min(offsets),
            last_offset=max(offsets),
            at_ms=at_ms,
            tenant=lines[0].tenant,
            route=lines[0].route,
            model=lines[0].model,
            sums=sums,
            errors=dict(Counter(line.code for line in summed if line.code is not None)),
            receipts=tuple(
                Receipt(
                    line.request_id,
                    cast("ReceiptKind", line.kind),
                    line.nano_usd,
                    line.input_tokens,
                    line.output_tokens,
                    line.code,
                )
                for line in lines
                if line.request_id is not None and line.kind in RECEIPT_KINDS
            ),
        )

    def _id(self, first: int, at_ms: int, source: Coordinates | None) -> str:
        if self._singly and source is not None:
            # The request's own place: two executions of one request, after a crash of enrich, are the same response.
            return f"{source.topic}-{source.partition}@{source.offset}/{source.timestamp_ms}"
        # An input offset is committed once. The time tells a topic from a later one of the same name; without
        # transactions it would tell a repetition from its first, so there the offset must do.
        return f"{self._lane}@{first}" if self._singly else f"{self._lane}@{first}/{at_ms}"


# --- as records ------------------------------------------------------------------------------------------------


def encode(delta: Delta) -> bytes:
    """A delta as its record's value."""
    return dumps(delta)


def decode(value: bytes | None) -> Delta:
    """A delta from its record. Raises the subclasses of InvalidRecordError, also for what PostgreSQL cannot count: one
    foreign record that it refused would hold up all behind it.
    """
    get = check.json_object(value, None, MAX_DEPTH).get
    receipts, errors = check.objects(get("receipts"), "$.receipts"), check.mapping(get("errors"), "$.errors")
    return Delta(
        id=_name(get("id"), "$.id", MAX_ID_BYTES),
        lane=_name(get("lane"), "$.lane", MAX_ID_BYTES),
        epoch=check.whole(get("epoch"), "$.epoch"),
        first_offset=check.whole(get("first_offset"), "$.first_offset"),
        last_offset=check.whole(get("last_offset"), "$.last_offset"),
        at_ms=check.whole(get("at_ms"), "$.at_ms"),
        tenant=check.identifier(get("tenant"), "$.tenant"),
        route=_name(get("route"), "$.route"),
        model=_name(get("model"), "$.model"),
        sums=_counts(get("sums"), "$.sums", MAX_COUNT),
        errors={_name(code, "$.errors"): _count(number, f"$.errors.{code}") for code, number in errors.items()},
        receipts=tuple(_receipt(item, f"$.receipts[{index}]") for index, item in enumerate(receipts)),
    )


def _receipt(found: dict[str, Any], path: str) -> Receipt:
    get = found.get
    return Receipt(
        request_id=check.identifier(get("request_id"), f"{path}.request_id"),
        kind=cast("ReceiptKind", check.one_of(get("kind"), f"{path}.kind", RECEIPT_KINDS)),
        nano_usd=check.optional(get("nano_usd"), f"{path}.nano_usd", _count),
        input_tokens=check.or_else(0, get("input_tokens"), f"{path}.input_tokens", _count),
        output_tokens=check.or_else(0, get("output_tokens"), f"{path}.output_tokens", _count),
        code=check.optional(get("code"), f"{path}.code", _name),
    )


def _name(value: object, path: str, most: int = MAX_NAME_BYTES) -> str:
    found = check.string(value, path)
    if "\x00" in found or len(found.encode()) > most:
        raise check.violation(path, value, f"must have at most {most} bytes and no NUL")
    return found


def _count(value: object, path: str) -> int:
    return check.whole(value, path, 0, MAX_COUNT)


def _counts(value: object, path: str, most: int) -> dict[str, int]:
    """Sums by their names; one that this version does not know is left out."""
    found = check.mapping(value, path)
    return {name: check.whole(number, f"{path}.{name}", 0, most) for name, number in found.items() if name in SUMS}


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """A record of the usage topic: a window as it stands, or an alert (see ``schemas/usage.v1.json``)."""

    type: Literal["window", "alert"]
    tenant: str
    window_s: int
    start: int
    route: str = ""
    model: str = ""
    sums: dict[str, int] = field(default_factory=dict)
    budget: str = ""
    percent: int = 0
    spent_nano: int = 0
    spent_tokens: int = 0


def decode_usage(value: bytes | None) -> UsageRecord:
    """A record of the usage topic. Raises the subclasses of InvalidRecordError."""
    get = check.json_object(value, None, MAX_DEPTH).get
    return UsageRecord(
        type=cast("Literal['window', 'alert']", check.one_of(get("type"), "$.type", {"window", "alert"})),
        tenant=check.identifier(get("tenant"), "$.tenant"),
        window_s=check.or_else(0, get("window_s"), "$.window_s", check.whole),
        start=check.or_else(0, get("start"), "$.start", check.whole),
        route=check.or_else("", get("route"), "$.route", check.string),
        model=check.or_else("", get("model"), "$.model", check.string),
        sums=_counts(get("sums"), "$.sums", MAX_SUM),
        budget=check.or_else("", get("budget"), "$.budget", check.string),
        percent=check.or_else(0, get("percent"), "$.percent", check.whole),
        spent_nano=check.or_else(0, get("spent_nano"), "$.spent_nano", check.whole),
        spent_tokens=check.or_else(0, get("spent_tokens"), "$.spent_tokens", check.whole),
    )
