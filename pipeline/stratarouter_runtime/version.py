"""This package's version, as pyproject.toml has it, and in which form its modules run."""

import importlib.util

__version__ = "0.1.0"


def modules() -> str:
    """What every request passes: ``compiled`` (to machine code, ``make compiled``) or ``interpreted`` modules."""
    found = importlib.util.find_spec("stratarouter_runtime.engine.engine")
    return "interpreted" if found is None or str(found.origin).endswith(".py") else "compiled"
