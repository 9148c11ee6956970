"""Embedders: what turns a query into a vector where the record brought none."""

from __future__ import annotations

from pathlib import Path

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedders.hashing import HashingEmbedder
from stratarouter_runtime.embedders.local import LocalEmbedder, files_in_folder, local_available
from stratarouter_runtime.embedders.openai_compatible import DEFAULT_BASE_URL, OpenAICompatibleEmbedder
from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.ports import Embedder, Transport

__all__ = ["HashingEmbedder", "LocalEmbedder", "OpenAICompatibleEmbedder", "create_embedder", "local_available"]


def create_embedder(config: RuntimeConfig, *, transport: Transport | None = None) -> Embedder | None:
    """The embedder that ``config`` names, not yet started; None for ``embedder = "none"``.

    Args:
        config: ``embedder_model`` is a model name for "openai", and for "local" a folder that holds ``model.onnx``
            and ``tokenizer.json`` in place of the packaged ones.
        transport: for "openai", started and stopped by the caller; None makes one that the embedder owns.

    Raises:
        ConfigurationError: ``embedding_dimension`` is not the local model's.
    """
    if config.embedder == "local":
        return _local(config)
    if config.embedder == "openai":
        return _openai(config, transport)
    return None


def _local(config: RuntimeConfig) -> LocalEmbedder:
    files = files_in_folder(Path(config.embedder_model)) if config.embedder_model else None
    embedder = LocalEmbedder(files)
    if config.embedding_dimension not in (None, embedder.dimension):
        raise ConfigurationError(
            f"embedding_dimension = {config.embedding_dimension} but embedder = 'local' makes {embedder.dimension}",
            remedy="leave embedding_dimension out, or choose another embedder",
        )
    return embedder


def _openai(config: RuntimeConfig, transport: Transport | None) -> OpenAICompatibleEmbedder:
    assert config.embedder_model is not None, "RuntimeConfig refuses embedder = 'openai' without a model"
    owns_transport = transport is None
    if transport is None:
        # Not above: the local embedder needs no HTTP client.
        from stratarouter_runtime.providers import create_transport  # noqa: PLC0415

        transport = create_transport()
    return OpenAICompatibleEmbedder(
        transport=transport,
        model=config.embedder_model,
        base_url=config.embedder_base_url or DEFAULT_BASE_URL,
        api_key=config.openai_api_key.get_secret_value() if config.openai_api_key else None,
        dimension=config.embedding_dimension,
        owns_transport=owns_transport,
    )
