"""``python -m stratarouter_runtime.cli``."""

from stratarouter_runtime.cli import main

main()
