"""Vectors from any server that speaks OpenAI's embeddings endpoint, over the transport port."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from stratarouter_runtime.embedders.vectors import unit_vectors, well_formed
from stratarouter_runtime.errors import EmbedderError, ProviderError
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.port_values import HttpCall, HttpReply
from stratarouter_runtime.ports import Transport
from stratarouter_runtime.records import Vector

DEFAULT_BASE_URL = "https://api.openai.com/v1"
MAX_BATCH = 256
"""Inputs a call: a reply of 256 vectors of 1,536 floats is about 8 MB of JSON, which a deadline of seconds allows."""
EMBED_TIMEOUT_S = 10.0
"""Deadline of one ``embed``, all its calls together."""
REFUSALS = (400, 413, 422)
"""What servers answer to texts that they do not take: one is empty or too long, or all together are."""
MAX_CALLS = 32
"""For one batch, with what is asked for again in parts: one bad text among 64 takes 13, two at most 23."""
EXCERPT_CHARS = 200
"""Of a server's error body in our message."""
PROBE_TEXT = "dimension"


class OpenAICompatibleEmbedder:
    """Posts texts to ``{base_url}/embeddings``. Does not retry: a request without a vector goes on without one."""

    def __init__(
        self,
        *,
        transport: Transport,
        model: str,
        base_url: str = DEFAULT_BASE_URL,
        api_key: str | None = None,
        dimension: int | None = None,
        timeout_s: float = EMBED_TIMEOUT_S,
        owns_transport: bool = False,
    ) -> None:
        """Build without connecting.

        Args:
            transport: the HTTP path.
            model: as the server names it.
            base_url: up to and without ``/embeddings``.
            api_key: sent as a bearer token; None sends none.
            dimension: what the vectors must have; None learns it from one short call in ``start``.
            timeout_s: deadline of one ``embed``.
            owns_transport: start and stop the transport with this embedder.
        """
        self._transport = transport
        self._model = model
        self._url = base_url.rstrip("/") + "/embeddings"
        self._api_key = api_key
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._dimension = dimension
        self._timeout_s = timeout_s
        self._owns_transport = owns_transport

    @property
    def dimension(self) -> int:
        """Length of the vectors. Raises EmbedderError before ``start`` where it was not configured."""
        if self._dimension is None:
            raise EmbedderError("the embedder's dimension is not known yet", remedy="call start() first")
        return self._dimension

    async def start(self) -> None:
        """Open the transport; ask the server for the dimension where it was not configured."""
        if self._owns_transport:
            await self._transport.start()
        if self._dimension is None:
            try:
                self._dimension = len((await self.embed([PROBE_TEXT]))[0])
            except BaseException:
                await self.stop()
                raise

    async def stop(self) -> None:
        """Close the transport, if it is this embedder's own. Idempotent."""
        if self._owns_transport:
            await self._transport.stop()

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One unit vector a text, in calls of at most 256. Raises EmbedderError.

        Where the server refuses some of the texts, the error has the others' vectors.
        """
        vectors: dict[int, Vector] = {}
        refusal = ""
        try:
            async with asyncio.timeout(self._timeout_s):
                for start in range(0, len(texts), MAX_BATCH):
                    batch = range(start, min(start + MAX_BATCH, len(texts)))
                    refusal = await self._embed_batch(texts, batch, vectors) or refusal
        except TimeoutError as exc:
            raise EmbedderError(f"the embedder at {self._url} took longer than {self._timeout_s:g} s") from exc
        if len(vectors) < len(texts):
            raise EmbedderError(refusal, vectors=[vectors.get(place) for place in range(len(texts))])
        return [vectors[place] for place in range(len(texts))]

    async def _embed_batch(self, texts: Sequence[str], places: Sequence[int], vectors: dict[int, Vector]) -> str:
        """Put the vectors of the texts at ``places`` into ``vectors``. The last refusal; "" where there was none.

        One bad text has the server refuse all that came with it: what is refused together is asked for in halves, all
        at once, until they are single.
        """
        refusal, parts, calls = "", [places], 0
        while parts and calls + len(parts) <= MAX_CALLS:
            calls += len(parts)
            asked = (self._ask([texts[place] for place in part]) for part in parts)
            halves: list[Sequence[int]] = []
            for part, found in zip(parts, await asyncio.gather(*asked, return_exceptions=True), strict=True):
                if isinstance(found, BaseException):
                    raise found
                if isinstance(found, str):
                    refusal, middle = found, len(part) // 2
                    halves += [part[:middle], part[middle:]] if middle else []
                else:
                    vectors.update(zip(part, found, strict=True))
            parts = halves
        return refusal

    async def _ask(self, texts: Sequence[str]) -> list[Vector] | str:
        """Their vectors, or how the server refuses them."""
        body = json_bytes(
            {"model": self._model, "input": [well_formed(text) for text in texts], "encoding_format": "float"}
        )
        call = HttpCall("POST", self._url, self._headers, body, timeout_s=self._timeout_s)
        try:
            reply = await self._transport.send(call)
        except ProviderError as exc:
            raise EmbedderError(f"the embedder at {self._url} did not answer: {exc.message}") from exc
        if reply.status != 200:
            problem = f"the embedder at {self._url} answered {reply.status}: {self._excerpt(reply)}"
            if reply.status in REFUSALS:
                return problem
            raise EmbedderError(problem)
        rows = read_reply(reply, len(texts))
        if self._dimension not in (None, rows.shape[1]):
            raise EmbedderError(
                f"the embedder answers vectors of {rows.shape[1]}, not of {self._dimension}",
                remedy="correct embedding_dimension or embedder_model",
            )
        return unit_vectors(rows)

    def _excerpt(self, reply: HttpReply) -> str:
        text = reply.body[: 8 * EXCERPT_CHARS].decode("utf-8", "replace")
        # Some servers repeat the key that they refuse.
        return (text.replace(self._api_key, "***") if self._api_key else text)[:EXCERPT_CHARS]


def read_reply(reply: HttpReply, count: int) -> NDArray[np.float64]:
    """The vectors of a good embeddings reply, shape (count, dimension), in the order of the texts.

    Raises EmbedderError where the body is not ``count`` vectors of one length.
    """
    try:
        items = sorted(orjson.loads(reply.body)["data"], key=_index)
        rows = np.array([item["embedding"] for item in items], dtype=np.float64)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
        raise EmbedderError(f"the embedder's reply is not a list of embeddings: {exc}") from exc
    if [_index(item) for item in items] != list(range(count)) or rows.ndim != 2 or rows.shape[1] == 0:
        raise EmbedderError(f"the embedder's reply holds {len(items)} vectors of {rows.shape[1:]} for {count} texts")
    return rows


def _index(item: dict[str, Any]) -> int:
    return int(item["index"])
