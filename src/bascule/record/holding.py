"""A lock that machines see of each other, also where they do not see the system's own.

It is the system's lock on a file, which ends with its process, and beside that file a `.holder`, which only one can
make. It says who made it, and counts on every few seconds. Whoever is granted the lock and finds a holder knows better
than the system. A holder of a process of this machine that has ended is nobody's. Any other one is watched: one that
counts on is somebody's whom the system's lock keeps off nobody, since locks are each machine's own on this file system,
or its server was started again and has forgotten them; one that stands still is nobody's. No clocks are compared, and
where nobody was lost nothing is waited for.
"""

from __future__ import annotations

import errno
import os
import platform
import secrets
import threading
import time
import warnings
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from bascule.core.errors import RequestError
from bascule.core.host import is_running

_BEAT = 2.0
"""Seconds between two counts of a holder."""
_WATCH = 25.0
"""Seconds that a holder stands still before it is nobody's: longer than a client goes on showing what a file was."""
_ENOUGH = 3
"""Counts by which it is somebody's, who has had the time to take a forgotten lock again."""
_LOOK = 0.5
"""Seconds between two looks at a holder."""
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)  # in a record that somebody sent, a link may lead anywhere


class HeldError(Exception):
    """Somebody else has the lock; `unseen` if the system would have granted it all the same."""

    def __init__(self, *, unseen: bool) -> None:
        super().__init__(unseen)
        self.unseen = unseen


class Hold:
    """A lock that this process has, until `release`."""

    def __init__(self, lock: Path, over: Path, system: FileLock, *, lockable: bool) -> None:
        self.lockable = lockable
        """Whether the file system has locks at all."""
        self.lock, self._over, self._system = lock, _whole(over), system
        self._holder, self._who = holder_of(lock), ""
        self._token, self._counted = secrets.token_hex(8), 0
        self._end = threading.Event()
        self._counting = threading.Thread(target=self._count_on, daemon=True)

    def make_holder(self, command: str) -> bool:
        """Whether this is the one that could make it. Where nothing can be written, it is gone without."""
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        details = ": ".join(filter(None, (f"since {since}", " ".join(command.split()))))
        who = f"process {os.getpid()} on {platform.node()} ({details})\n{self._token} {os.getpid()} {_machine()}\n"
        try:
            opened = os.open(self._holder, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        except OSError:
            return True
        self._who = who
        try:
            self._write(opened)
            _OWN[self._token] = self
            self._counting.start()
        except BaseException as error:  # also Ctrl-C, which must not leave one behind
            _OWN.pop(self._token, None)
            self._end.set()
            with suppress(OSError):
                self._holder.unlink(missing_ok=True)
            if not isinstance(error, OSError):
                raise
        return True

    def release(self) -> None:
        """Let go of it, and remove the holder if it is still one's own."""
        self._end.set()
        try:
            if _OWN.pop(self._token, None):
                self._counting.join()
                with suppress(OSError):
                    if self._is_own(_read(self._holder)):
                        self._holder.unlink(missing_ok=True)
        finally:
            with suppress(OSError):  # a server that was away has let go of it
                self._system.release()

    def check(self, path: Path) -> None:
        """See that a file may still be written, if it is in the folder that the lock is over.

        Raises:
            RequestError: Another process has taken the lock over.
        """
        if not path.is_relative_to(self._over):
            return
        try:
            content = _read(self._holder)
        except FileNotFoundError:
            content = b""
        except OSError:
            return  # the file cannot be written either, and the system will say why
        if not self._is_own(content):
            who = _first_line(content) or "another process, which has ended since,"
            raise RequestError(
                f"{who} has taken over {self._over}: seen from there, process {os.getpid()} on {platform.node()} was "
                "lost. It writes nothing more there. What it has finished is kept; the same command continues"
            )

    def _write(self, opened: int) -> None:
        """As long as the time before, so that nobody meets half of it."""
        with os.fdopen(opened, "wb") as file:
            file.write(f"{self._who}{self._counted:010}\n".encode(errors="backslashreplace"))

    def _is_own(self, content: bytes) -> bool:
        return self._token.encode() in content

    def _count_on(self) -> None:
        while not self._end.wait(_BEAT):
            with suppress(OSError):  # out of reach for now; whether somebody took over meanwhile is seen next time
                if not self._is_own(_read(self._holder)):
                    return
                self._counted += 1
                self._write(os.open(self._holder, os.O_WRONLY | _NOFOLLOW))
                self._take_again()

    def _take_again(self) -> None:
        """A server that has forgotten the lock grants it once more; then it is as before."""
        again = FileLock(self.lock, timeout=0, thread_local=False)
        if take(again):
            before, self._system = self._system, again
            before.release()


_OWN: dict[str, Hold] = {}
"""What this process holds."""


def refuse_taken_over(path: Path) -> None:
    """See that no other process has taken a lock over that this process held to write a file.

    Raises:
        RequestError: One has; says which.
    """
    whole = _whole(path)
    for own in list(_OWN.values()):
        own.check(whole)


def hold(lock: Path, over: Path, command: str = "", *, patience: float, decide: bool = False) -> Hold:
    """Take a lock.

    Args:
        lock: Its file, in a folder that is there.
        over: The folder that only whoever has it may write into.
        command: What this process was started with, for others to read.
        patience: Seconds to wait for whoever has it; for as long as it takes if negative.
        decide: Watch a holder that the system knows nothing of until it is clear what it is, however long that takes,
            and do not wait for somebody.

    Raises:
        HeldError: Somebody has it, still after so many seconds.
    """
    end = time.monotonic() + patience if patience >= 0 else float("inf")
    while True:
        system = FileLock(lock, timeout=max(0.0, end - time.monotonic()) if patience >= 0 else -1, thread_local=False)
        taken = take(system)
        if taken is False:
            raise HeldError(unseen=False)
        own = Hold(lock, over, system, lockable=taken is not None)
        with ExitStack() as undo:
            undo.callback(own.release)
            if own.make_holder(command):
                undo.pop_all()
                return own
            found = _look(lock)
            if found is _Holder.NOBODYS:
                holder_of(lock).unlink(missing_ok=True)
        if found is _Holder.COUNTS if decide else time.monotonic() >= end and found is not _Holder.NOBODYS:
            raise HeldError(unseen=found is _Holder.COUNTS)
        if found is not _Holder.NOBODYS:
            time.sleep(_LOOK)


def is_held(lock: Path) -> bool:
    """Whether somebody has a lock, as far as is known: one that might be somebody's, too."""
    return is_taken(lock) or _look(lock) in (_Holder.STANDS, _Holder.COUNTS)


def find_unseen(locks: Iterable[Path]) -> Path | None:
    """Remove the holders that are nobody's; a lock that somebody has of whom the system knows nothing, if there is one.

    Args:
        locks: Locks beside which there are holders.
    """
    own = {_whole(one.lock) for one in list(_OWN.values())}
    doubtful = [lock for lock in locks if _whole(lock) not in own]
    told = False
    while doubtful:
        for lock in list(doubtful):
            found = _look(lock)  # without the lock, which its holder may be about to take again
            if found is _Holder.GONE or is_taken(lock):
                doubtful.remove(lock)
            elif found is _Holder.NOBODYS:
                remove_left(lock)
                doubtful.remove(lock)
            elif found is _Holder.COUNTS:
                return lock
        if doubtful and not told:
            told = True
            warnings.warn(
                f"{who_has(doubtful[0])} may still be at work here, though its lock is not seen; it is watched for up "
                f"to {_WATCH:.0f} s",
                stacklevel=2,
            )
        if doubtful:
            time.sleep(_LOOK)
    return None


def remove_left(lock: Path) -> None:
    """Remove a holder that is known to be nobody's, unless somebody has come meanwhile."""
    system = FileLock(lock, timeout=0, thread_local=False)
    with suppress(OSError):  # somebody else's run, which may be read and not be written from here
        if take(system) is not False:
            if _look(lock) is _Holder.NOBODYS:
                holder_of(lock).unlink(missing_ok=True)
            system.release()


# --- the system's lock -----------------------------------------------------------------------------------------------


def is_taken(lock: Path) -> bool:
    """Whether the system says that somebody has a lock."""
    if not lock.is_file():
        return False
    system = FileLock(lock, timeout=0, thread_local=False)
    try:
        taken = take(system)
    except OSError:
        return False  # somebody else's run, which may be read and not be locked from here
    system.release()
    return taken is False


def take(lock: FileLock) -> bool | None:
    """Take the system's lock; False when somebody has it, None where the file system has no locks."""
    try:
        lock.acquire()
    except Timeout:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return None
    return True


# --- holders ---------------------------------------------------------------------------------------------------------


class _Holder(Enum):
    """What a holder is, whose lock the system would grant."""

    GONE = auto()
    NOBODYS = auto()
    STANDS = auto()
    """Not clear yet."""
    COUNTS = auto()


@dataclass
class _Watched:
    content: bytes
    looked: float
    still: float = 0.0
    """Seconds that it has stood still, of those in which somebody looked."""
    counts: int = 0


_WATCHED: dict[Path, _Watched] = {}


def holder_of(lock: Path) -> Path:
    """Where it says who has a lock."""
    return lock.with_name(lock.name.removesuffix(".lock") + ".holder")


def lock_of(holder: Path) -> Path:
    """The lock that a holder tells of."""
    return holder.with_name(holder.name.removesuffix(".holder") + ".lock")


def who_has(lock: Path) -> str:
    """Process, machine and command of whoever has a lock."""
    try:
        return _first_line(_read(holder_of(lock))) or "another process"
    except OSError:
        return "another process"


def _first_line(content: bytes) -> str:
    return content.decode(errors="replace").partition("\n")[0]


def _look(lock: Path) -> _Holder:
    holder, now = _whole(holder_of(lock)), time.monotonic()
    try:
        content = _read(holder)
    except FileNotFoundError:
        _WATCHED.pop(holder, None)
        return _Holder.GONE
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            return _Holder.NOBODYS
        content = b""  # out of reach for now
    if content and _has_ended(content):
        return _Holder.NOBODYS
    known = _WATCHED.get(holder)
    if known is None or content.splitlines()[:2] != known.content.splitlines()[:2]:
        known = _WATCHED[holder] = _Watched(content, now)
    elif content != known.content:
        known.content, known.still, known.counts = content, 0.0, known.counts + 1
    else:
        known.still += min(now - known.looked, 2 * _BEAT)  # nobody looked in a longer time, or could
    known.looked = now
    if known.still >= _WATCH:
        return _Holder.NOBODYS
    return _Holder.COUNTS if known.counts >= _ENOUGH else _Holder.STANDS


def _has_ended(content: bytes) -> bool:
    """Whether a holder is known to be nobody's at first sight."""
    try:
        token, process, machine = content.decode(errors="replace").splitlines()[1].split(" ", 2)
        number = int(process)
    except (IndexError, ValueError):
        return True  # of an earlier version: whoever has the lock, the system knows
    if machine != _machine():
        return False
    return token not in _OWN if number == os.getpid() else not is_running(number)


@cache
def _machine() -> str:
    """What tells machines apart, and containers in which processes have other numbers."""
    facts = [platform.node()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(facts)


def _read(holder: Path) -> bytes:
    with os.fdopen(os.open(holder, os.O_RDONLY | _NOFOLLOW), "rb") as file:
        return file.read(10_000)


def _whole(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  (a link stays one)
