"""The console: the pipeline, requests, dead letters, cache and money as pages on a worker's HTTP port, or alone."""

from stratarouter_runtime.console.server import Console

__all__ = ["Console"]
