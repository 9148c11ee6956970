"""The usage processor as a process of its own: started by ``usage_supervisor``, ends with the one that started it.

Standard input brings the configuration as one line of JSON; its end says to stop. Standard output tells the progress,
a line of JSON each second.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from pydantic import SecretStr

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import RuntimeSystemError
from stratarouter_runtime.journal.usage import UsageAccounts
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.telemetry.logs import configure_logging, event

if TYPE_CHECKING:
    from stratarouter_runtime.processors.usage import UsageProcessor

log = logging.getLogger("stratarouter.usage")

STDIN = 0
PROGRESS_EVERY_S = 1.0
STOP_TIMEOUT_S = 10.0
"""For Faust to leave its group."""
MODULE = __name__ if __name__ != "__main__" else "stratarouter_runtime.processors.usage_process"


def as_line(config: RuntimeConfig) -> bytes:
    """Every setting as one line of JSON, secrets in clear: for a pipe between two processes only."""
    values = {name: getattr(config, name) for name in type(config).model_fields if name != "config_file"}
    return json_bytes(values, default=_plain) + b"\n"


def _plain(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value)


async def serve(config: RuntimeConfig) -> None:
    """Count until standard input ends or SIGTERM or SIGINT comes."""
    # Here, because the worker that starts this process needs the name of the module and nothing of Faust.
    from stratarouter_runtime.processors.usage import UsageProcessor  # noqa: PLC0415

    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, told.set)
    loop.add_reader(STDIN, lambda: None if os.read(STDIN, 4096) else told.set())
    accounts = UsageAccounts(config.database_url)
    await accounts.start()
    try:
        with tempfile.TemporaryDirectory(prefix="stratarouter-usage-") as folder:
            processor = UsageProcessor(config, accounts, RouteTable.for_config(config).budgets, Path(folder))
            starting = asyncio.create_task(processor.start(), name="start usage")
            ending = asyncio.create_task(told.wait(), name="told to stop")
            await asyncio.wait([starting, ending], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
            while starting.done() and not told.is_set():
                processor.check()
                await _tell(processor)
                await asyncio.wait([ending], timeout=PROGRESS_EVERY_S)
            starting.cancel()
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await processor.stop()
    finally:
        await accounts.stop()


async def _tell(processor: UsageProcessor) -> None:
    """One line of progress. Raises BrokenPipeError where nobody listens any more."""
    lag = await processor.lag()
    line = {
        "counted": processor.counted,
        "lag": lag,
        "alerts": processor.alerts,
        "waiting": processor.waiting,
        "joining": processor.joining,
    }
    sys.stdout.buffer.write(json_bytes(line) + b"\n")
    sys.stdout.buffer.flush()


async def run(config: RuntimeConfig) -> int:
    """Serve to the end, whatever it is; the exit code."""
    try:
        await serve(config)
    except RuntimeSystemError as exc:
        event(log, logging.ERROR, "usage ended", cause=exc.message, remedy=exc.remedy)
    except BrokenPipeError:
        event(log, logging.WARNING, "usage ended", cause="the worker that started it is gone")
    except Exception:
        # The outermost frame: the supervisor starts another.
        log.exception("usage ended")
    else:
        return 0
    return 1


async def main() -> None:
    """Read the configuration, serve, and end the process."""
    # Unbuffered, so that nothing after the line is taken from the loop that watches for the end.
    with open(STDIN, "rb", buffering=0, closefd=False) as stdin:  # noqa: ASYNC230 - nothing else is running yet
        config = RuntimeConfig(**orjson.loads(stdin.readline()))
    configure_logging(config.log_level)
    exit_code = await run(config)
    # From inside the loop: its own end waits for Faust's threads, and their consumer goes on in the group meanwhile,
    # with partitions that nobody counts any more.
    logging.shutdown()
    os._exit(exit_code)


if __name__ == "__main__":
    asyncio.run(main())
