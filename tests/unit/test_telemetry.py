"""Metrics, logs, traces and the HTTP endpoint keep what they promise to an operator."""

from __future__ import annotations

import asyncio
import io
import logging
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from prometheus_client import Counter, Gauge, Histogram, generate_latest

from stratarouter_runtime.cache import shelf, votes
from stratarouter_runtime.errors import ConfigurationError, ShuttingDownError
from stratarouter_runtime.processors.lane import LaneState
from stratarouter_runtime.records import CacheVerdictKind, Status
from stratarouter_runtime.telemetry import http, logs, metrics, tracing
from stratarouter_runtime.telemetry.http import HttpEndpoint
from stratarouter_runtime.telemetry.logs import REDACTED, JsonFormatter, about, configure_logging, event, event_of
from stratarouter_runtime.telemetry.metrics import DEFINITIONS, OTHER, Family, Metrics
from stratarouter_runtime.telemetry.tracing import (
    TraceParent,
    child_traceparent,
    configure_tracing,
    context_of,
    parse_traceparent,
)

ROOT = Path(__file__).parents[2]
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"

# --- metrics ---------------------------------------------------------------------------------------------------


def exposed(found: Metrics) -> str:
    return generate_latest(found.registry).decode()


def test_the_page_of_metrics_is_the_table() -> None:
    assert (ROOT / "ops" / "METRICS.md").read_text() == metrics.markdown(), "run `make docs`"


def test_every_metric_of_the_table_is_a_typed_attribute_and_the_reverse() -> None:
    kinds: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
    shape = {name: (get_args(hint) or (hint,), get_origin(hint)) for name, hint in get_type_hints(Metrics).items()}
    assert shape == {d.name: ((kinds[d.kind],), Family if d.labels else None) for d in DEFINITIONS}


def test_every_metric_is_exposed_under_its_full_name() -> None:
    text = exposed(Metrics())
    for definition in DEFINITIONS:
        assert f"# HELP {definition.full_name} {definition.help}" in text


def test_names_follow_their_kind() -> None:
    for definition in DEFINITIONS:
        assert definition.name.endswith("_total") == (definition.kind == "counter")
        assert bool(definition.buckets) == (definition.kind == "histogram")


def test_known_label_value_is_kept() -> None:
    found = Metrics()
    found.responses_total.labels("error", ShuttingDownError.code).inc()
    assert 'responses_total{code="shutting_down",status="error"} 1.0' in exposed(found)


@given(st.lists(st.text(min_size=1).filter(lambda t: t not in metrics.ERROR_CODES), min_size=1, max_size=20))
def test_unknown_label_values_share_one_series(values: list[str]) -> None:
    found = Metrics()
    for value in values:
        found.dead_letters_total.labels(value).inc()
    lines = [line for line in exposed(found).splitlines() if line.startswith("stratarouter_dead_letters_total{")]
    series = [line for line in lines if not line.endswith(" 0.0")]
    assert series == [f'stratarouter_dead_letters_total{{code="{OTHER}"}} {float(len(values))}']


def test_unknown_values_are_not_remembered() -> None:
    found = Metrics()
    before = set(found.retries_total._children)
    for number in range(100):
        found.retries_total.labels(f"x{number}").inc()
    assert set(found.retries_total._children) == before


def test_wrong_number_of_label_values_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        Metrics().responses_total.labels("ok")


def test_configured_providers_have_their_own_series() -> None:
    found = Metrics(providers=["azure-eu"])
    found.provider_calls_total.labels("azure-eu", "ok").inc()
    assert 'provider="azure-eu"' in exposed(found)
    assert Metrics().provider_calls_total.close(("azure-eu", "ok")) == (OTHER, "ok")


def test_providers_that_are_added_later_have_their_own_series() -> None:
    found = Metrics(providers=["azure-eu"])
    found.provider_calls_total.labels("azure-us", "ok").inc()
    found.add_providers(["azure-us"])
    found.provider_calls_total.labels("azure-us", "ok").inc(2)
    count = "stratarouter_provider_calls_total"
    assert {
        name: found.registry.get_sample_value(count, {"provider": name, "outcome": "ok"})
        for name in (OTHER, "azure-us")
    } == {OTHER: 1.0, "azure-us": 2.0}
    assert found.provider_calls_total.close(("azure-eu", "ok")) == ("azure-eu", "ok")
    assert found.breakers.close(("azure-us", "open")) == ("azure-us", "open")
    assert found.registry.get_sample_value("stratarouter_breaker_openings_total", {"provider": "azure-us"}) == 0.0


def test_two_instances_in_one_process_do_not_meet() -> None:
    one, two = Metrics(), Metrics()
    one.coalesced_total.inc()
    assert "stratarouter_coalesced_total 1.0" in exposed(one)
    assert "stratarouter_coalesced_total 0.0" in exposed(two)


def test_label_values_are_those_the_code_uses() -> None:
    cache = ROOT / "pipeline/stratarouter_runtime/cache"
    guard = "".join((cache / f"{name}.py").read_text("utf-8") for name in ("guard", "rules", "placing", "wording"))
    beside = {shelf.MARKED_WRONG, votes.DISPUTED}
    assert beside == {metrics.MARKED_WRONG, metrics.DISPUTED}
    assert beside | set(re.findall(r"guard:[a-z_]+", guard)) == metrics.GUARD_REASON.values
    # A lane that was closed is no longer among those that are counted.
    assert set(get_args(LaneState)) - {"closed"} == metrics.LANE_STATE.values
    assert set(get_args(CacheVerdictKind)) == metrics.VERDICT.values
    assert set(get_args(Status)) == metrics.STATUS.values


# --- logs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, with the logging of the test run put back afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("stratarouter")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    root.handlers.clear()
    stream = io.StringIO()
    configure_logging("info", stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


def logged(stream: io.StringIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


LOG = logging.getLogger("stratarouter.test")


def test_an_event_is_one_json_line_with_its_fields(lines: io.StringIO) -> None:
    event(LOG, logging.INFO, "lane ready", lane="requests-3", offset=42)
    [line] = logged(lines)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "stratarouter.test",
        "event": "lane ready",
        "lane": "requests-3",
        "offset": 42,
    }


@dataclass(frozen=True)
class Asked:
    request_id: str
    traceparent: str | None = None


async def test_lines_of_a_requests_task_carry_its_ids_and_those_of_its_trace(lines: io.StringIO) -> None:
    async def work(asked: Asked) -> None:
        about(asked)
        await asyncio.sleep(0)
        event(LOG, logging.INFO, "retry")
        await asyncio.create_task(inner())

    async def inner() -> None:
        event(LOG, logging.INFO, "call")

    await asyncio.gather(work(Asked("a", f"00-{'ab' * 16}-{'cd' * 8}-01")), work(Asked("b", "nonsense")))
    event(LOG, logging.INFO, "outside")
    found = [(line["event"], line.get("request_id"), line.get("trace_id")) for line in logged(lines)]
    assert sorted(found, key=str) == [
        ("call", "a", "ab" * 16),
        ("call", "b", None),
        ("outside", None, None),
        ("retry", "a", "ab" * 16),
        ("retry", "b", None),
    ]


def test_what_every_request_causes_is_no_flood_and_what_was_left_out_is_said(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    for number in range(50):
        event_of(LOG, logging.WARNING, "error response", number=number)
    event_of(LOG, logging.WARNING, "dead letter")
    now += 1.0
    event_of(LOG, logging.WARNING, "error response", number=50)
    errors = [line for line in logged(lines) if line["event"] == "error response"]
    assert [line["number"] for line in errors] == [*range(logs.EACH_PER_S), 50]
    assert errors[-1]["left_out_before"] == 50 - logs.EACH_PER_S
    assert sum(line["event"] == "dead letter" for line in logged(lines)) == 1


def test_events_below_the_level_are_not_logged(lines: io.StringIO) -> None:
    event(LOG, logging.DEBUG, "detail")
    assert logged(lines) == []


def test_libraries_stay_quiet_even_at_debug(lines: io.StringIO) -> None:
    configure_logging("debug", lines)
    logging.getLogger("aiokafka").debug("a whole request with its prompt")
    event(LOG, logging.DEBUG, "detail")
    assert [line["event"] for line in logged(lines)] == ["detail"]


def test_a_field_never_hides_what_the_line_says_of_itself(lines: io.StringIO) -> None:
    event(LOG, logging.INFO, "odd", level="x", time=1)
    [line] = logged(lines)
    assert (line["level"], line["level_"], line["time_"]) == ("info", "x", 1)


def test_an_exception_is_text_on_the_same_line(lines: io.StringIO) -> None:
    try:
        raise ShuttingDownError("too many sk-abcdefgh12345678")  # noqa: TRY301
    except ShuttingDownError:
        LOG.exception("refused")
    [line] = logged(lines)
    assert "ShuttingDownError: too many" in line["exception"]
    assert "abcdefgh12345678" not in line["exception"]


def raised(message: str, lines: io.StringIO) -> str:
    """The exception of the one line that a traceback with ``message`` makes."""
    try:
        raise RuntimeError(message)  # noqa: TRY301
    except RuntimeError:
        LOG.exception("refused")
    [line] = logged(lines)
    lines.seek(0)
    lines.truncate()
    return str(line["exception"])


def test_no_part_of_a_key_is_left_where_a_traceback_is_cut(lines: io.StringIO) -> None:
    key = "sk-proj-ABCDEFGH0123456789abcdefghijklmnop"
    whole = raised(f"refused {key} ", lines)
    assert whole.endswith(f"refused {REDACTED} ")
    for shift in range(len(key) + 20):
        cut = raised(f"refused {key} " + "z" * (logs.MAX_TRACE_CHARS - shift), lines)
        assert len(cut) == logs.MAX_TRACE_CHARS
        assert not any(key[at : at + 4] in cut for at in range(8, len(key) - 3)), shift


def test_an_exception_that_utf_8_cannot_say_is_a_line_without_its_key(capfd: pytest.CaptureFixture[str]) -> None:
    """Where the line cannot be made, ``logging`` prints the traceback as it is."""
    problem = RuntimeError("no file caf\udce9 of sk-abcdefgh12345678")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    # Not by way of a logger: what pytest keeps of a record could not be passed on.
    handler.handle(
        logging.LogRecord("stratarouter.x", 40, __file__, 1, "refused", None, (type(problem), problem, None))
    )
    assert "abcdefgh" not in capfd.readouterr().err
    assert orjson.loads(stream.getvalue())["exception"].endswith(f"no file caf\\udce9 of {REDACTED}")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:p@ss@cache.example:6379/0", "redis://[redacted]@cache.example:6379/0"),
        ("redis://:p@s@s@cache.example", "redis://[redacted]@cache.example"),
        ("postgresql://app:hunter2@db.example/x?mail=a@b", "postgresql://[redacted]@db.example/x?mail=a@b"),
        (
            "amqp://u:p@one.example,amqp://u:p@two.example",
            "amqp://[redacted]@one.example,amqp://[redacted]@two.example",
        ),
        (
            '{"at":"http://u:p@h.example","by":"me@x.example"}',
            '{"at":"http://[redacted]@h.example","by":"me@x.example"}',
        ),
        ("https://me@h.example:443/a:b@c", "https://me@h.example:443/a:b@c"),
    ],
)
def test_a_password_in_a_url_ends_at_its_last_at_sign(url: str, shown: str) -> None:
    assert logs.redact(url) == shown


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF123456_xyz",
        "sk-ant-api03-abcdefghijk",
        "Bearer eyJhbGciOi.eyJzdWIi.c2ln",
        "AIzaSyA1234567890abcdefghijklmno",
        "postgresql://app:hunter2@db.example/x",
    ],
)
def test_values_shaped_like_secrets_are_blanked(lines: io.StringIO, secret: str) -> None:
    event(LOG, logging.INFO, f"call {secret}", plain=secret, nested={"a": [f"x {secret} y"]}, error=ValueError(secret))
    LOG.info("rendered %s", secret)
    text = lines.getvalue()
    hidden = "hunter2" if "hunter2" in secret else secret
    assert hidden not in text
    assert REDACTED in text


def test_fields_named_like_secrets_are_blanked_whatever_they_hold(lines: io.StringIO) -> None:
    event(LOG, logging.INFO, "connected", sasl_password="plain words", headers={"Authorization": "Basic abc"})
    [line] = logged(lines)
    assert line["sasl_password"] == REDACTED
    assert line["headers"]["Authorization"] == REDACTED


def test_bytes_are_shown_by_their_length_only(lines: io.StringIO) -> None:
    event(LOG, logging.INFO, "undecodable", value=b"a customer's prompt")
    assert logged(lines)[0]["value"] == "19 bytes"


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text(st.characters()),
            lambda inner: st.lists(inner) | st.dictionaries(st.integers() | st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_any_field_can_be_logged(fields: dict[str, Any]) -> None:
    record = logging.LogRecord("stratarouter.x", logging.INFO, __file__, 1, "odd \ud800", None, None)
    record.fields = fields
    assert orjson.loads(JsonFormatter().format(record))["event"] == "odd \\ud800"


def test_a_long_value_is_cut(lines: io.StringIO) -> None:
    event(LOG, logging.INFO, "page", body="x" * 100_000)
    assert len(lines.getvalue()) < 3000


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown log level 'loud'"):
        configure_logging("loud")


# --- traces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01".encode(), f"cc-{TRACE}-{SPAN}-01-x"]
)
def test_a_valid_traceparent_is_read(header: str | bytes) -> None:
    assert parse_traceparent(header) == TraceParent(TRACE, SPAN, 1)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        b"\xff\xfe",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-extra",
        f"00-{TRACE}-{SPAN}",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 1000,
    ],
)
def test_a_traceparent_that_breaks_a_rule_counts_as_absent(header: str | bytes | None) -> None:
    assert parse_traceparent(header) is None


def test_a_child_keeps_the_trace_and_the_sampling() -> None:
    child = parse_traceparent(child_traceparent(f"00-{TRACE}-{SPAN}-01"))
    assert child is not None
    assert (child.trace_id, child.sampled) == (TRACE, True)
    assert child.span_id != SPAN


def test_without_a_parent_a_new_unsampled_trace_begins() -> None:
    child = parse_traceparent(child_traceparent("garbage"))
    assert child is not None
    assert not child.sampled


def test_a_span_in_the_context_of_a_parent_belongs_to_its_trace() -> None:
    parent = trace.get_current_span(context_of(TraceParent(TRACE, SPAN))).get_span_context()
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}", parent.is_remote) == (TRACE, SPAN, True)
    assert not trace.get_current_span(context_of(None)).get_span_context().is_valid


@pytest.mark.parametrize(("enabled", "endpoint"), [(False, "http://127.0.0.1:4317"), (True, None), (True, "")])
def test_tracing_without_switch_or_endpoint_does_nothing(enabled: bool, endpoint: str | None) -> None:
    found = configure_tracing(enabled=enabled, endpoint=endpoint)
    assert not found.enabled
    with found.tracer("x").start_as_current_span("call") as span:
        assert not span.is_recording()
    found.stop()


def test_tracing_with_an_endpoint_records_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    # The exporter would try for seconds to reach a collector; what it does is its own tests' matter.
    monkeypatch.setattr(
        "opentelemetry.exporter.otlp.proto.grpc.trace_exporter.OTLPSpanExporter.export", lambda *_: None
    )
    found = configure_tracing(enabled=True, endpoint="http://127.0.0.1:9", version="1")
    assert found.enabled
    span = found.tracer("x").start_span("call", context=context_of(TraceParent(TRACE, SPAN)))
    assert span.is_recording()
    span.end()
    found.stop(0.1)
    found.stop()
    assert not found.enabled


# --- http ------------------------------------------------------------------------------------------------------


class Checks:
    """Health and readiness as a test wants them."""

    def __init__(self) -> None:
        self.state: tuple[bool, dict[str, Any]] = (True, {})

    def health(self) -> dict[str, Any]:
        return {"status": "alive"}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        return self.state


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
async def endpoint(checks: Checks) -> AsyncIterator[HttpEndpoint]:
    found = HttpEndpoint("127.0.0.1", 0, Metrics(), checks.health, checks.ready)
    await found.start()
    yield found
    await found.stop()


async def test_a_port_that_is_taken_is_said_with_the_setting(endpoint: HttpEndpoint, checks: Checks) -> None:
    second = HttpEndpoint("127.0.0.1", endpoint.port, Metrics(), checks.health, checks.ready)
    with pytest.raises(ConfigurationError, match=f"HTTP on 127.0.0.1:{endpoint.port} cannot be served") as caught:
        await second.start()
    assert "PROMETHEUS_PORT" in caught.value.remedy
    await second.stop()


async def ask(endpoint: HttpEndpoint, request: bytes) -> tuple[int, bytes]:
    """Status and body of the reply to ``request``, as bytes on the wire."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        writer.write(request)
        if not request.endswith(b"\r\n\r\n"):
            writer.write_eof()
        reply = await reader.read()
        writer.close()
        await writer.wait_closed()
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_metrics_are_served(endpoint: HttpEndpoint) -> None:
    endpoint._metrics.coalesced_total.inc()
    status, body = await ask(endpoint, get("/metrics?name=x"))
    assert status == 200
    assert b"stratarouter_coalesced_total 1.0" in body


async def test_openmetrics_is_served_where_asked_for_with_what_leads_to_a_trace(endpoint: HttpEndpoint) -> None:
    traceparent = f"00-{'ab' * 16}-{'cd' * 8}"
    seconds = endpoint._metrics.provider_call_seconds.labels("openai")
    seconds.observe(0.2, tracing.exemplar(f"{traceparent}-01"))
    seconds.observe(20.0, tracing.exemplar(f"{traceparent}-00"))
    seconds.observe(50.0, tracing.exemplar(None))
    asking = b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n"
    status, body = await ask(endpoint, asking)
    assert status == 200
    assert body.rstrip().endswith(b"# EOF")
    exemplars = [line for line in body.decode().splitlines() if " # {" in line]
    assert len(exemplars) == 1, "one call was recorded by its caller"
    assert f'# {{trace_id="{"ab" * 16}"}} 0.2' in exemplars[0]


async def test_a_living_process_is_healthy(endpoint: HttpEndpoint) -> None:
    assert await ask(endpoint, get("/healthz")) == (200, b'{"status":"alive"}')


async def test_a_process_that_is_not_ready_says_why(endpoint: HttpEndpoint, checks: Checks) -> None:
    checks.state = (False, {"enrich": "no partition is running"})
    status, body = await ask(endpoint, get("/readyz"))
    assert status == 503
    assert orjson.loads(body) == {"ready": False, "reasons": {"enrich": "no partition is running"}}
    checks.state = (True, {})
    assert (await ask(endpoint, get("/readyz")))[0] == 200


async def test_a_failing_check_answers_500_without_details(endpoint: HttpEndpoint, checks: Checks) -> None:
    checks.state = None  # type: ignore[assignment]
    status, body = await ask(endpoint, get("/readyz"))
    assert status == 500
    assert b"TypeError" in body


async def test_head_has_no_body(endpoint: HttpEndpoint) -> None:
    assert await ask(endpoint, get("/healthz", "HEAD")) == (200, b"")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/"), 404),
        (get("/healthz", "POST"), 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /healthz HTT", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * http.MAX_HEAD_BYTES, 431),
    ],
)
async def test_a_wrong_request_is_refused(endpoint: HttpEndpoint, request_bytes: bytes, status: int) -> None:
    assert (await ask(endpoint, request_bytes))[0] == status


@pytest.mark.parametrize(("length", "status"), [("", 411), ("-1", 411), ("1048577", 413), ("9" * 5000, 413)])
async def test_a_body_of_no_or_too_great_a_length_is_refused(length: str, status: int) -> None:
    asked = http.HttpRequest("POST", "/api/x", headers={"content-length": length})
    found = await http._with_body(asked, asyncio.StreamReader())
    assert isinstance(found, http.Reply)
    assert found.status == status


async def test_connections_beyond_the_limit_are_cut_off(
    endpoint: HttpEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 0)
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_a_silent_client_is_dropped(endpoint: HttpEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT_S", 0.01)
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_a_stopped_endpoint_listens_no_more(checks: Checks) -> None:
    found = HttpEndpoint("127.0.0.1", 0, Metrics(), checks.health, checks.ready)
    await found.start()
    await found.stop()
    await found.stop()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", found.port)


def test_tracing_module_needs_no_exporter_to_be_imported() -> None:
    assert not hasattr(tracing, "OTLPSpanExporter")


def test_a_client_library_says_each_kind_of_thing_once_in_a_while_and_we_always(monkeypatch):
    now = 100.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    sparing = logs.Sparing()

    def lets_through(name: str, message: str, *arguments: object) -> bool:
        return sparing.filter(logging.LogRecord(name, logging.ERROR, "", 0, message, arguments, None))

    assert lets_through("aiokafka.conn", "Unable to connect to %s", "a:1")
    assert not lets_through("aiokafka.conn", "Unable to connect to %s", "b:2")
    assert lets_through("aiokafka.conn", "Something else")
    assert all(lets_through("stratarouter.lane", "lane fenced") for _ in range(3))
    now += logs.REPEAT_S
    assert lets_through("aiokafka.conn", "Unable to connect to %s", "b:2")
