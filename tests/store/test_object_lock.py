"""One driver for a folder in a bucket: the lock, on a real S3 server."""

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
    for name, seconds in (("RENEW_S", 0.2), ("STALE_S", 5.0), ("_POLL_S", 0.1)):
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
        assert lock.surely_held()
        assert not lock.hold()
        process.send_signal(signal.SIGKILL)
    assert lock.held() is False
    assert lock.hold()
    assert lock_of(out).held() is True
    lock.release()
    assert lock_of(out).held() is False


@pytest.mark.usefixtures("hurried")
def test_a_folder_of_another_machine_is_taken_once_nobody_renews_its_lock(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a restarted pod meets that of its predecessor."""
    plan, out = plan_of(strategies=["prune"]), uri(server, "machine")
    ran(out, strategies=["prune"])
    other = elsewhere(out)
    assert other.hold()
    with pytest.raises(UserError, match="expected a folder that no other sweep writes to, found process"):
        opened(plan, out)  # the lock is seen to be renewed
    assert " s to see whether process " in capsys.readouterr().err
    assert Reader(out).read().state == "running"
    other._ended.set()  # as if it had been killed
    folder = opened(plan, out)
    assert lock_of(out)._get().holder["host"] != "elsewhere"  # type: ignore[union-attr]
    driver.run(plan, folder, in_process(plan))


@pytest.mark.usefixtures("hurried")
def test_a_driver_that_was_suspended_looks_before_it_writes(server: str) -> None:
    out = uri(server, "lost")
    place = Place(out)
    place._lock = lock = elsewhere(out)
    assert place.hold()
    place.write("run.json", b"{}")
    lock._ended.set()  # its thread does not renew the lock any more, and another driver waits for it
    other = lock_of(out)
    assert other.hold()
    for attempt in (lambda: place.write("run.json", b"{}"), lambda: place.delete("run.json")):
        with pytest.raises(StoreError, match=r"found that process \d+ on .* has taken it over"):
            attempt()
    place.release()
    assert Place(out).exists(".lock")  # it is the other driver's
    other.release()


@pytest.mark.usefixtures("hurried")
def test_a_lock_that_somebody_deletes_is_made_anew(server: str) -> None:
    out = uri(server, "deleted")
    place = Place(out)
    assert place.hold()
    Place(out).delete(".lock")
    until = time.monotonic() + 20
    while not Place(out).exists(".lock"):
        assert time.monotonic() < until
        time.sleep(0.05)
    place.write("run.json", b"{}")
    place.release()
    assert not Place(out).exists(".lock")


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("s3://nowhere/x?scheme=http&region=us-east-1&endpoint_override={server}", "NoSuchBucket"),
        ("s3://results/x?scheme=http&region=us-east-1&endpoint_override=a_name:1", "Invalid endpoint"),
    ],
)
def test_a_bucket_that_cannot_be_locked_is_one_line(server: str, where: str, found: str) -> None:
    with pytest.raises(UserError, match=rf"bucket that accepts conditional writes of \.lock, .*{found}"):
        Place(where.format(server=server)).hold()
