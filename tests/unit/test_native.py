"""Native libraries in one process."""

import importlib.util
import subprocess
import sys

import pytest


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
def test_the_vector_index_and_the_local_embedder_load_in_one_process() -> None:
    """They once died of a segmentation fault where the index came first, as it does in a worker."""
    code = "import stratarouter_runtime.cache.index; import onnxruntime; print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-500:]
