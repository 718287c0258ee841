"""Log a sweep to an MLflow server (``--track mlflow:URI``), as one run that is resumed when the sweep is
continued."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from topdown_ray.addresses import shown, without_secrets
from topdown_ray.errors import UserError, one_line
from topdown_ray.store.manifest import read_manifest
from topdown_ray.sweeps.events import Ended, Started, SweepEvent
from topdown_ray.sweeps.tracking.facts import Log, TrackedSweep, as_csv, metrics
from topdown_ray.sweeps.tracking.options import Track

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "topdown_ray"  # if MLFLOW_EXPERIMENT_NAME is not set
RUN_ID = "topdown_ray.run_id"  # the tag by which the run of a sweep is found
AT_ONCE = 100  # parameters per request (and 1000 metrics): the limits of MLflow's protocol
# set before the import, which would otherwise send telemetry; MLflow also prints links to stdout
_QUIET = dict.fromkeys(
    ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"), "true"
)
_STATUS = {"complete": "FINISHED", "interrupted": "KILLED"}


@contextlib.contextmanager
def mlflow_run(track: Track, sweep: TrackedSweep) -> Iterator[Log]:
    """Log to the run that has the sweep's run id as a tag. It is created when the sweep starts. Raises
    UserError if no server answers.
    """
    os.environ.update(_QUIET)
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    try:
        with _impatient():
            client = MlflowClient(tracking_uri=track.where)
            experiment = client.get_experiment_by_name(name)
    except Exception as error:  # exceptions of requests, of MLflow or of a database
        reason = one_line(without_secrets(_cause(error), track.where))
        raise UserError(
            f"{track.option}: expected a server that answers, found none at {shown(track.where)} ({reason})"
        ) from error
    run_id = ""

    def begin(event: Started) -> str:
        place = experiment.experiment_id if experiment else _created(client, name)
        runs = client.search_runs([place], f"tags.`{RUN_ID}` = '{sweep.run_id}'", max_results=1)
        if runs:
            run = str(runs[0].info.run_id)
            client.update_run(run, "RUNNING")
        else:
            tags = {RUN_ID: sweep.run_id, "topdown_ray.out": event.out}
            run = str(client.create_run(place, tags=tags, run_name=sweep.title).info.run_id)
        # also for an existing run, which may have been interrupted before it had them
        parameters = [Param(key, value) for key, value in sweep.parameters.items()]
        for i in range(0, len(parameters), AT_ONCE):
            client.log_batch(run, params=parameters[i : i + AT_ONCE])
        return run

    def end(event: Ended) -> None:
        try:
            client.log_text(run_id, as_csv(sweep.final_table()), "results.csv")
            client.log_text(run_id, json.dumps(read_manifest(sweep.out), indent=2), "run.json")
        finally:
            client.set_terminated(run_id, _STATUS.get(event.status, "FAILED"))

    def log(events: Sequence[SweepEvent]) -> None:
        nonlocal run_id
        for event in events:
            if isinstance(event, Started):
                run_id = begin(event)
        now = int(time.time() * 1000)
        values = [Metric(key, value, now, step) for key, (value, step) in metrics(events).items()]
        for i in range(0, len(values) if run_id else 0, 10 * AT_ONCE):
            client.log_batch(run_id, metrics=values[i : i + 10 * AT_ONCE])
        for event in events:
            if isinstance(event, Ended) and run_id:
                end(event)

    yield log


def _created(client: MlflowClient, name: str) -> str:
    """Return the identity of a new experiment. Another sweep may have created it at the same moment."""
    try:
        return str(client.create_experiment(name))
    except Exception:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _cause(error: BaseException) -> str:
    """Return what the operating system said, or the error's own text if that was not the cause."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(error)


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Try a request twice within seconds, where MLflow would try for minutes, unless the user sets other
    values. MLflow reads these settings for each request.
    """
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
