"""One driver for a folder in a bucket: the lock, on a real S3 server."""

import json
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from support.buckets import uri
from support.folders import opened, plan_of, ran
from support.sweeping import assert_same, in_process

import topdown_ray
from topdown_ray.errors import StoreError, UserError
from topdown_ray.store import object_lock
from topdown_ray.store.object_lock import ObjectLock
from topdown_ray.store.place import Place
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.status import Reader

HOLD = """
import sys, time
from topdown_ray.store.place import Place
assert Place(sys.argv[1]).hold()
print("held", flush=True)
time.sleep(600)
"""


def lock_of(where: str) -> ObjectLock:
    lock = Place(where)._lock
    assert isinstance(lock, ObjectLock)
    return lock


def elsewhere(where: str) -> ObjectLock:
    """The lock as a driver on another machine has it."""
    lock = lock_of(where)
    lock._me["machine"], lock._me["host"] = "another", "elsewhere"
    return lock


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("RENEW_S", 0.2), ("STALE_S", 2.0), ("_POLL_S", 0.1)):
        monkeypatch.setattr(object_lock, name, seconds)


def test_a_second_driver_is_refused_until_the_first_has_ended(server: str) -> None:
    plan, out = plan_of(strategies=["prune"]), uri(server, "second")
    first = opened(plan, out)
    assert Place(out).exists(".lock")
    with pytest.raises(UserError, match="expected a folder that no other sweep writes to, found process"):
        opened(plan, out)
    assert Reader(out).read().state == "running"
    driver.run(plan, first, in_process(plan))
    assert not Place(out).exists(".lock")
    assert Reader(out).read().state == "complete"
    assert_same(topdown_ray.load(out), ran(out, strategies=["prune"]))


def test_a_lock_of_a_killed_process_is_taken_at_once(server: str) -> None:
    out = uri(server, "killed")
    process = subprocess.Popen([sys.executable, "-c", HOLD, out], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "held\n"
        lock = lock_of(out)
        assert lock.held() is True
        assert not lock.hold()
        process.send_signal(signal.SIGKILL)
    assert lock.held() is False
    assert lock.hold()
    assert lock_of(out).held() is True
    lock.release()
    assert lock_of(out).held() is False


@pytest.mark.usefixtures("hurried")
def test_a_lock_of_another_machine_is_taken_once_nobody_renews_it(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = uri(server, "machine")
    other, lock = elsewhere(out), lock_of(out)
    assert other.hold()
    assert lock.held() is True
    assert not lock.hold()  # it is seen to be renewed
    assert "waiting up to 2 s to see whether the driver on elsewhere still runs" in capsys.readouterr().err
    other._ended.set()  # as if it had been killed
    assert lock.hold()
    assert lock.mine
    lock.release()


@pytest.mark.usefixtures("hurried")
def test_a_driver_whose_folder_was_taken_over_writes_no_more(server: str) -> None:
    out = uri(server, "lost")
    place = Place(out)
    assert place.hold()
    place.write("run.json", b"{}")
    taken = json.loads(place.read(".lock")) | {"token": "other", "host": "elsewhere", "pid": 7}
    lock = lock_of(out)
    lock._client().put_object(Bucket="results", Key="lost/.lock", Body=json.dumps(taken).encode())
    until = time.monotonic() + 20
    while place._lock is not None and place._lock.lost is None and time.monotonic() < until:
        time.sleep(0.05)
    with pytest.raises(StoreError, match="found that process 7 on elsewhere has taken it over"):
        place.write("run.json", b"{}")
    place.release()
    assert Place(out).exists(".lock")  # it is the other driver's


def test_a_bucket_that_cannot_be_locked_is_one_line(server: str) -> None:
    with pytest.raises(UserError, match=r"nowhere/x\?.*: expected a bucket in which .lock can be created"):
        Place(uri(server, "x").replace("results", "nowhere")).hold()
