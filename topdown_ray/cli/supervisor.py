"""Run a command that uses Ray in a child process, and report how the command ended if it cannot do so itself.

If its raylet or its GCS dies, Ray ends the process of its driver in native code: no exception is raised and
no clean-up runs. The command therefore runs in a forked child. The parent loads neither torch nor Ray. It
forwards signals, waits, and exits with the child's status. If the child ends without a farewell, the parent
writes the missing records and the missing error line.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import threading
import time

from topdown_ray.errors import UserError, one_line

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_NONE = -1  # the status of a command that has not ended
_STATUS = 1  # of a command whose process died
LINGER_S = 20.0  # how long a child may run after its farewell: Ray's clean-up hangs if its raylet does


class _Shared(ctypes.Structure):
    """What the child reports to the parent in shared memory, which the parent can read however the child
    ended.
    """

    _fields_ = (
        ("status", ctypes.c_int),
        ("began", ctypes.c_double),  # when the sweep began, by time.monotonic
        *((name, ctypes.c_int64) for name in ("done", "total", "failed", "lost")),
        ("out", ctypes.c_char * 8192),  # empty: no sweep has begun, or it has ended
        ("log", ctypes.c_char * 8192),
    )


_shared = _Shared.from_buffer(mmap.mmap(-1, ctypes.sizeof(_Shared)))


def supervise(address: str) -> None:
    """Continue in a child of this process if the command uses Ray. The parent exits when the child has ended.

    Has no effect in a process that has loaded torch or runs threads (the command line as a library), because
    it cannot be forked safely.
    """
    if address == "none" or "torch" in sys.modules or threading.active_count() > 1:
        return
    _shared.status = _NONE
    sys.stdout.flush()
    sys.stderr.flush()
    watched = {*_SIGNALS, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    parent = os.getpid()
    child = os.fork()
    if child:
        raise SystemExit(_outcome(child, _wait(child, watched)))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # killing the parent kills the command
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def sweep_begins(out: str, log: str | None) -> None:
    """Record that a sweep writes to this place, and its events to this log (``--log-json``)."""
    _shared.began, _shared.out, _shared.log = (
        time.monotonic(),
        os.fsencode(out)[:8191],
        os.fsencode(log or "")[:8191],
    )


def sweep_goes_on(done: int, total: int, failed: int, lost: int) -> None:
    """Record the progress of the sweep."""
    _shared.done, _shared.total, _shared.failed, _shared.lost = done, total, failed, lost


def sweep_ends() -> None:
    """Record that the sweep has ended by itself."""
    _shared.out = b""


def farewell(status: int) -> None:
    """Record that the command has printed everything and ends with this status."""
    _shared.status = status


def _wait(child: int, watched: set[signal.Signals]) -> int:
    """Forward signals that were sent only to the parent until the child has ended. Return its exit status, or
    minus its signal.
    """
    said = False
    while True:
        # the terminal sends Ctrl-C to both processes (its code is above zero); a process may have sent its
        # signal only to the parent
        found = signal.sigtimedwait(watched, 1.0)
        if found is not None and found.si_signo in _SIGNALS and found.si_code <= 0:
            os.kill(child, found.si_signo)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if _shared.status != _NONE:
            if not said:
                said, deadline = True, time.monotonic() + LINGER_S
            elif time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)


def _outcome(child: int, ended: int) -> int:
    """Return the exit status of the parent. Write the missing records and the error line if the child left
    none.
    """
    out, log = os.fsdecode(_shared.out), os.fsdecode(_shared.log)
    if out:
        # the user must read how the command ended, even if the folder cannot be written
        with contextlib.suppress(Exception):
            _record(out, child)
    if _shared.status != _NONE:
        return int(_shared.status)
    how = (
        f"exit status {ended}; Ray ends a driver in this way if its raylet or GCS dies"
        if ended >= 0
        else _signal_name(-ended)
    )
    error = f"the process of the command ended without a result ({how})"
    advice = "finished work is kept; run the same command again to continue"
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[2K\x1b[?25h")  # the progress line, and the cursor that it hides
    if out:
        advice = f"finished shards are in {_place(out)}; run the same command again to continue"
        with contextlib.suppress(Exception):
            _report(log, error)
    print(f"error: {one_line(f'{error}; {advice}', 2000)}", file=sys.stderr)
    return _STATUS


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(number).name}"
    return f"killed by signal {number}"


def _place(out: str) -> str:
    from topdown_ray.store.place import shown

    return shown(out)


def _record(out: str, pid: int) -> None:
    from topdown_ray.store.folder import ResultFolder

    ResultFolder(out).abandon(pid)


def _report(log: str, error: str) -> None:
    """Write the event ``end`` that the child could not write."""
    from topdown_ray.sweeps.events import Ended, json_lines

    numbers = {name: int(getattr(_shared, name)) for name in ("done", "total", "failed", "lost")}
    with contextlib.suppress(UserError), json_lines(log or None) as observe:
        wall_s = round(time.monotonic() - _shared.began, 3)
        observe(Ended(**numbers, status="error", wall_s=wall_s, error=error))
