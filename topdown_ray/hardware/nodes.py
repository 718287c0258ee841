"""List the kinds of nodes in a Ray cluster, and run a stopwatch in its own process on a node that is reserved
as a whole."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from topdown_ray import machine
from topdown_ray.cluster import START_TIMEOUT_S
from topdown_ray.errors import StartError, UserError
from topdown_ray.hardware.stopwatch import Stopwatch
from topdown_ray.spaces.latency_table import Conditions
from topdown_ray.spaces.layers import Layer
from topdown_ray.spaces.space import Config


@dataclass(frozen=True)
class NodeKind:
    """Nodes with the same hardware that offer Ray the same resources, and one of them."""

    hardware: Mapping[str, Any]  # see machine.hardware
    cpus: float
    gpus: float
    nodes: int
    node_id: str

    @property
    def label(self) -> str:
        """A name for files and messages."""
        parts = [
            self.hardware["processor"],
            f"{self.hardware['cores']}cores",
            f"{self.cpus:g}cpus",
            *self.hardware["gpus"],
        ]
        return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def node_kinds() -> list[NodeKind]:
    """Return the kinds of nodes of the connected cluster, by hardware and resources. Nodes without CPUs for
    Ray are left out.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    probe = ray.remote(num_cpus=0, max_retries=0)(machine.hardware)
    asked = [probe.options(scheduling_strategy=_on(node["NodeID"])).remote() for node in nodes]
    try:
        found = ray.get(asked, timeout=START_TIMEOUT_S)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
        raise StartError(
            f"cluster: expected every node to report its hardware within {START_TIMEOUT_S} s, found "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    kinds: dict[str, NodeKind] = {}
    for node, hardware in sorted(zip(nodes, found, strict=True), key=lambda pair: str(pair[0]["NodeID"])):
        kind = NodeKind(
            hardware, node["Resources"]["CPU"], node["Resources"].get("GPU", 0), 1, node["NodeID"]
        )
        same = kinds.get(kind.label)
        kinds[kind.label] = kind if same is None else dataclasses.replace(same, nodes=same.nodes + 1)
    return [kinds[label] for label in sorted(kinds)]


def _on(node_id: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


@ray.remote(max_restarts=0, max_task_retries=0)
class StopwatchActor:
    """A stopwatch in its own process on its node."""

    def __init__(self, space: str, conditions: Conditions):
        self.watch = Stopwatch(space, conditions)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the stopwatch."""
        return getattr(self.watch, name)(*arguments)


class RemoteWatch:
    """A stopwatch on a node that is reserved with all its CPUs and GPUs until :meth:`close`, so that no other
    work of Ray runs there.

    Raises StartError if the node does not become free in time, or if its process dies.
    """

    def __init__(self, kind: NodeKind, space: str, conditions: Conditions):
        self.kind = kind
        self._actor = StopwatchActor.options(  # type: ignore[attr-defined]
            num_cpus=kind.cpus, num_gpus=kind.gpus, scheduling_strategy=_on(kind.node_id)
        ).remote(space, conditions)

    def facts(self) -> dict[str, Any]:
        """As Stopwatch.facts."""
        facts: dict[str, Any] = self._call("facts")
        return facts

    def contention(self) -> float | None:
        """As Stopwatch.contention."""
        ratio: float | None = self._call("contention")
        return ratio

    def hold_layers(self, layers: Sequence[Layer]) -> None:
        """As Stopwatch.hold_layers."""
        self._call("hold_layers", list(layers))

    def hold_subnets(self, configs: Sequence[Config]) -> None:
        """As Stopwatch.hold_subnets."""
        self._call("hold_subnets", list(configs))

    def laps(self, order: Sequence[int]) -> list[float]:
        """As Stopwatch.laps."""
        times: list[float] = self._call("laps", list(order))
        return times

    def close(self) -> None:
        """Release the node."""
        ray.kill(self._actor)

    def _call(self, name: str, *arguments: Any) -> Any:
        answer = self._actor.call.remote(name, *arguments)
        timeout = START_TIMEOUT_S if name == "facts" else None  # the first call waits for the reservation
        try:
            return ray.get(answer, timeout=timeout)
        except ray.exceptions.GetTimeoutError as error:
            raise StartError(
                f"{self.kind.label}: expected the node to be free within {START_TIMEOUT_S} s, found it busy; "
                "wait until other work there has ended, and run the same command again"
            ) from error
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None  # the same error that was raised there
            raise StartError(f"{self.kind.label}: {str(error).strip().splitlines()[-1]}") from error
        except ray.exceptions.RayError as error:
            raise StartError(f"{self.kind.label}: {str(error).strip().splitlines()[-1]}") from error
