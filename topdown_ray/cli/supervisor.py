"""A light parent process for commands that use Ray, which reports how the command ended if the command itself
cannot.

Ray ends the process of its driver in native code when its raylet or its GCS has died: no exception is raised
and no clean-up runs. The command therefore runs in a forked child. The parent has loaded neither torch nor
Ray; it passes signals on, waits, and repeats the child's exit status. If the child ended without a farewell,
the parent writes the missing records and the missing error line."""

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
LINGER_S = 20.0  # after its farewell; Ray's own clean-up hangs if its raylet does


class _Shared(ctypes.Structure):
    """What the child tells the parent, in memory that both see: it can be read whatever became of the
    child.
    """

    _fields_ = (
        ("status", ctypes.c_int),
        ("began", ctypes.c_double),  # the sweep, by time.monotonic
        *((name, ctypes.c_int64) for name in ("done", "total", "failed", "lost")),
        ("out", ctypes.c_char * 8192),  # empty: no sweep has begun, or it has ended
        ("log", ctypes.c_char * 8192),
    )


_shared = _Shared.from_buffer(mmap.mmap(-1, ctypes.sizeof(_Shared)))


def supervise(address: str) -> None:
    """Go on in a child of this process if the command uses Ray; the parent leaves by SystemExit when the
    child has ended.

    Without effect in a process that has loaded torch or runs threads (the command line as a library): it
    cannot be forked safely."""
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
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # to kill the parent is to kill the command
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def sweep_begins(out: str, log: str | None) -> None:
    """A sweep begins to write to this place, and events to this log (``--log-json``)."""
    _shared.began, _shared.out, _shared.log = (
        time.monotonic(),
        os.fsencode(out)[:8191],
        os.fsencode(log or "")[:8191],
    )


def sweep_goes_on(done: int, total: int, failed: int, lost: int) -> None:
    """How far the sweep is."""
    _shared.done, _shared.total, _shared.failed, _shared.lost = done, total, failed, lost


def sweep_ends() -> None:
    """The sweep has written its own end."""
    _shared.out = b""


def farewell(status: int) -> None:
    """The command has said everything it had to say, and ends with this status."""
    _shared.status = status


def _wait(child: int, watched: set[signal.Signals]) -> int:
    """Pass on signals that were sent to the parent alone, until the child has ended: its exit status, or
    minus its signal.
    """
    said = False
    while True:
        # the terminal sends Ctrl-C to both (its code is above zero); what a process sent may be for the
        # parent alone
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
    """The status that the parent exits with; the missing records and the error line if the child left
    none.
    """
    out, log = os.fsdecode(_shared.out), os.fsdecode(_shared.log)
    if out:
        # whatever became of the folder, the user must read how the command ended
        with contextlib.suppress(Exception):
            _record(out, child)
    if _shared.status != _NONE:
        return int(_shared.status)
    how = (
        f"exit status {ended}, as Ray ends it when its raylet or GCS has died"
        if ended >= 0
        else _signal_name(-ended)
    )
    error = f"the process of the command ended without a result ({how})"
    advice = "what is finished is kept; run the same command again to go on"
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[2K\x1b[?25h")  # the progress line, and the cursor that it hides
    if out:
        advice = f"finished shards are in {_place(out)}; run the same command again to go on"
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
    """The event ``end`` that the child could not write."""
    from topdown_ray.sweeps.events import Ended, json_lines

    numbers = {name: int(getattr(_shared, name)) for name in ("done", "total", "failed", "lost")}
    with contextlib.suppress(UserError), json_lines(log or None) as observe:
        wall_s = round(time.monotonic() - _shared.began, 3)
        observe(Ended(**numbers, status="error", wall_s=wall_s, error=error))
