"""Who runs PostgreSQL, which refuses root, and how that user gets at folders that only root may enter."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from stratarouter_runtime.embedded.errors import EmbeddedStackError
from stratarouter_runtime.embedded.processes import Account

OWN_FOLDER = "/proc/self/cwd"
"""On Linux a process reaches its working directory by this name even where it may not enter the parents.

A server started by root thus keeps its data where the caller wants them, be it below a folder of mode 0700.
"""


def account_for_root() -> Account | None:
    """The account to drop to: nobody where this process is root, None (stay) otherwise.

    Raises:
        EmbeddedStackError: root, and the system has no such account.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd  # noqa: PLC0415 - missing on Windows

    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as exc:
        remedy = "start the stack as an ordinary user"
        raise EmbeddedStackError("PostgreSQL refuses root, and there is no user 'nobody'", remedy=remedy) from exc
    return Account(entry.pw_uid, entry.pw_gid)


def may_enter(mode: int, owner: int, group: int, account: Account) -> bool:
    """Whether ``account`` may pass through a folder with these permission bits and owners."""
    if owner == account.uid:
        return bool(mode & stat.S_IXUSR)
    return bool(mode & (stat.S_IXGRP if group == account.gid else stat.S_IXOTH))


def reaches(path: Path, account: Account | None) -> bool:
    """Whether ``account`` may enter (or run) ``path`` and every folder above it; None always may."""
    if account is None:
        return True
    whole = path.resolve()
    stats = (each.stat() for each in (whole, *whole.parents))
    return all(may_enter(s.st_mode, s.st_uid, s.st_gid, account) for s in stats)


def name_for(folder: Path, account: Account | None, platform: str = sys.platform) -> str:
    """How a process of ``account``, whose working directory is ``folder``, should call it.

    Raises:
        EmbeddedStackError: it cannot be reached, and the system has no name for the working directory.
    """
    if reaches(folder, account):
        return str(folder)
    if platform == "linux":
        return OWN_FOLDER
    remedy = "choose a data_dir whose parents every user may enter, or start the stack as an ordinary user"
    raise EmbeddedStackError(f"the user 'nobody', who runs PostgreSQL for root, cannot enter {folder}", remedy=remedy)


def give(folder: Path, account: Account | None) -> None:
    """Make ``folder`` with mode 0700, owned by ``account``.

    Raises:
        EmbeddedStackError: it exists and belongs to someone else.
    """
    made = not folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform == "win32":
        return
    if made and account is not None:
        os.chown(folder, account.uid, account.gid)
    wanted = os.geteuid() if account is None else account.uid
    if folder.stat().st_uid != wanted:
        raise EmbeddedStackError(
            f"{folder} belongs to uid {folder.stat().st_uid}, and PostgreSQL would run as uid {wanted}",
            remedy="start the stack as the user who made it (root's belongs to nobody), or choose another data_dir",
        )


def reachable_copy(package: Path, siblings: tuple[Path, ...], version: str, account: Account) -> Path:
    """A copy of ``package`` that ``account`` can reach, made once and shared by all stacks of root.

    Its name is predictable, so a folder found there is taken only if root made it and no one else may write to it.
    """
    root = next((Path(base) for base in (tempfile.gettempdir(), "/var/tmp", "/tmp") if _shared(base, account)), None)  # noqa: S108
    if root is None:
        raise EmbeddedStackError(
            f"the user 'nobody', who runs PostgreSQL for root, reaches neither {package} nor a temporary folder",
            remedy="install into an environment that every user may enter, or start the stack as an ordinary user",
        )
    home = root / f"stratarouter-postgres-{version}-{os.geteuid()}"
    if _is_ours(home) and all(_same_tree(source, home / source.name) for source in (package, *siblings)):
        return home / package.name
    draft = Path(tempfile.mkdtemp(prefix=f"{home.name}-", dir=root))
    try:
        for source in (package, *siblings):
            shutil.copytree(source, draft / source.name, symlinks=True)
        _open_to_all(draft)
        if _is_ours(home):
            shutil.rmtree(home)
        draft.rename(home)
    except OSError as exc:
        shutil.rmtree(draft, ignore_errors=True)
        remedy = f"remove {home} if it is not yours, and see that {root} has room for 50 MB"
        raise EmbeddedStackError(f"cannot copy PostgreSQL to {home}: {exc}", remedy=remedy) from exc
    return home / package.name


def _open_to_all(folder: Path) -> None:
    """Let everyone read and enter what the owner may: the original may come from an install with umask 077."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)


def _shared(folder: str, account: Account) -> bool:
    return Path(folder).is_dir() and reaches(Path(folder), account)


def _is_ours(folder: Path) -> bool:
    if not os.path.lexists(folder):
        return False
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _same_tree(source: Path, copy: Path) -> bool:
    """Whether ``copy`` still has every file at its size: cleaners of temporary folders take single old files."""
    for file in source.rglob("*"):
        twin = copy / file.relative_to(source)
        if file.is_file() and not (twin.is_file() and twin.stat().st_size == file.stat().st_size):
            return False
    return copy.is_dir()
