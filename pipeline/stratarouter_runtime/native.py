"""Loads native libraries that share a process in the one order that works.

usearch exports its own copy of the C++ runtime's symbols; onnxruntime imported after it binds to them and the process
dies of a segmentation fault at import. Imported the other way round both work (usearch 2.26.6, onnxruntime 1.32.0).
"""

import importlib.util

if importlib.util.find_spec("onnxruntime") is not None:
    import onnxruntime  # noqa: F401 - for its order alone

from usearch.index import Index

__all__ = ["Index"]
