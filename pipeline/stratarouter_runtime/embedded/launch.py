"""Becomes a server that cannot outlive its parent: drop the user, ask for the death signal, exec.

Run by path as ``python -I -S launch.py PARENT_PID SIGNAL UID GID PROGRAM ARGS...`` (Linux; UID -1 keeps the user).
A program of its own rather than a ``preexec_fn``, which may deadlock in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def drop_to(uid: int, gid: int) -> None:
    """Become ``uid``/``gid`` for good, without supplementary groups."""
    try:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    except OSError as exc:
        sys.exit(f"cannot become uid {uid}: {exc}; start the stack as an ordinary user instead of root")


def die_with(parent: int, death_signal: int) -> None:
    """Have the kernel send ``death_signal`` when the parent ends; exit if it has ended already.

    Comes after the change of user, which clears the setting.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the stack's process ended before this server began")


def main(argv: list[str]) -> None:
    """Turn into the program in ``argv[4:]``."""
    parent, death_signal, uid, gid = (int(word) for word in argv[:4])
    if uid >= 0:
        drop_to(uid, gid)
    die_with(parent, death_signal)
    # Python ignores these two, and an ignored signal stays ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execv(argv[4], argv[4:])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
