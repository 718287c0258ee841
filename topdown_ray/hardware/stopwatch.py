"""Time layers and whole subnets of OFA's networks, one run after another, on a CPU or a CUDA device.

Every run is a single one, without a warm call before it: in a network, the caches also hold the weights and
code of other layers when a layer's turn comes. (On one CPU thread with 12 MobileNetV3 subnets, sums of such
times were within 3 % of whole subnets on average. Sums of times with a warm call before each run were 12 %
too low.) The warm-up consists of whole rounds over all layers, each round in a new random order.

One thread on a CPU is timed by its own clock, which stops while other processes use the core. Several threads
are timed by the wall clock, and CUDA devices by events.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from topdown_ray import machine
from topdown_ray.errors import UserError
from topdown_ray.networks.supernet import Supernet, build_layer
from topdown_ray.spaces.latency_table import Conditions
from topdown_ray.spaces.layers import Layer
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Config

# oneDNN caches 1024 shapes by default. A space has more, and oneDNN would compile the shapes that it dropped
# again within the timed runs.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "65536")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MODES = ("eager", "compile", "graph")
GRAPH_RUNS = 10  # runs of a layer in one CUDA graph, whose start takes longer than a small layer
_SEED = 0


def check_words(conditions: Conditions) -> None:
    """Raise UserError unless these are valid conditions on some machine."""
    kind = conditions.device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise UserError(f"--device: expected cpu, cuda or cuda:N, found {conditions.device!r}")
    if conditions.dtype not in DTYPES:
        raise UserError(f"--dtype: expected one of {', '.join(DTYPES)}, found {conditions.dtype!r}")
    if conditions.mode not in MODES:
        raise UserError(f"--mode: expected one of {', '.join(MODES)}, found {conditions.mode!r}")
    if conditions.mode == "graph" and kind == "cpu":
        raise UserError("--mode: expected eager or compile on a CPU (graph is CUDA's), found 'graph'")


def check_conditions(conditions: Conditions) -> None:
    """Raise UserError unless this machine can run under these conditions."""
    check_words(conditions)
    if conditions.device != "cpu":
        try:
            index = torch.device(conditions.device).index or 0
        except RuntimeError as error:
            raise UserError(f"--device: expected cpu, cuda or cuda:N, found {conditions.device!r}") from error
        if index >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            expected = f"one of {count} CUDA devices" if count else "cpu, as there is no CUDA device here"
            raise UserError(f"--device: expected {expected}, found {conditions.device!r}")


class Stopwatch:
    """Holds layers or subnets of one space ready to run, and times them. Raises UserError if the conditions
    cannot be met.
    """

    def __init__(self, space: str, conditions: Conditions):
        check_conditions(conditions)
        self.space, self.conditions = SPACES[space], conditions
        self.device = torch.device(conditions.device)
        torch.set_num_threads(conditions.threads)
        if conditions.mode == "compile":
            torch._dynamo.config.fail_on_recompile_limit_hit = True  # never fall back to eager mode
        self._inputs: dict[tuple[int, ...], torch.Tensor] = {}
        self._runs: list[Callable[[], float]] = []
        self._generator = torch.Generator().manual_seed(_SEED)
        self._own_clock = self.device.type == "cpu" and conditions.threads == 1
        self._wall_ms = self._own_ms = 0.0

    def facts(self) -> dict[str, Any]:
        """Return what the times belong to: the device's name, the hardware and the versions."""
        hardware = machine.hardware()
        cpu = self.device.type == "cpu"
        name = hardware["processor"] if cpu else torch.cuda.get_device_name(self.device)
        clock = "thread" if self._own_clock else "wall" if cpu else "events"
        return {"device": name, "clock": clock, "hardware": hardware, "versions": machine.versions()}

    def contention(self) -> float | None:
        """Return the wall time of all runs so far divided by the thread's own time, which is 1 on a quiet
        machine. None if only one clock is read.
        """
        return self._wall_ms / self._own_ms if self._own_ms else None

    def hold_layers(self, layers: Sequence[Layer]) -> None:
        """Prepare these layers to be timed. Layers that differ only in the size of their input share a
        module.
        """
        modules: dict[Layer, nn.Module] = {}
        self._runs = []
        for layer in layers:
            shape = layer._replace(size_in=0, size_out=0)
            if shape not in modules:
                modules[shape] = self._ready(build_layer(layer))
            size = () if layer.kind == "linear" else (layer.size_in, layer.size_in)
            self._hold(modules[shape], (self.conditions.batch, layer.width_in, *size))
        gc.collect()

    def hold_subnets(self, configs: Sequence[Config]) -> None:
        """Prepare these whole subnets, cut out of OFA's supernet, to be timed."""
        supernet = Supernet(self.space)
        self._runs = []
        for config in configs:
            size = config["image_size"]
            self._hold(self._ready(supernet.materialise(config)), (self.conditions.batch, 3, size, size))
        gc.collect()

    def laps(self, order: Sequence[int]) -> list[float]:
        """Run what is held in this order, each once. Return the time of each in ms."""
        gc.disable()  # the garbage was already collected when the held modules were built
        try:
            with torch.inference_mode():
                return [self._runs[i]() for i in order]
        except RuntimeError as error:  # out of memory, or torch has no such operation in this dtype
            given = self.conditions
            raise UserError(
                f"--device {given.device}: expected layers that run with --batch {given.batch}, --dtype "
                f"{given.dtype} and --mode {given.mode}, found {str(error).splitlines()[0]}"
            ) from error
        finally:
            gc.enable()

    def _ready(self, module: nn.Module) -> nn.Module:
        module = module.to(self.device, DTYPES[self.conditions.dtype]).eval().requires_grad_(False)
        if self.conditions.channels_last:
            module = module.to(memory_format=torch.channels_last)
        if self.conditions.mode == "compile":
            # a traced module has its own code. torch looks compiled code up by it, which takes longer the
            # more modules share it.
            traced: nn.Module = torch.fx.symbolic_trace(module)
            module = torch.compile(traced, dynamic=False, fullgraph=True)  # type: ignore[assignment]
        return module

    def _input(self, shape: tuple[int, ...]) -> torch.Tensor:
        if shape not in self._inputs:
            try:
                x = torch.randn(shape, generator=self._generator).to(
                    self.device, DTYPES[self.conditions.dtype]
                )
            except RuntimeError as error:  # out of memory, or more elements than there are numbers for
                raise UserError(
                    f"--batch: expected images that fit into memory, found {self.conditions.batch}"
                ) from error
            layout = (
                torch.channels_last
                if self.conditions.channels_last and x.ndim == 4
                else torch.contiguous_format
            )
            self._inputs[shape] = x.contiguous(memory_format=layout)
        return self._inputs[shape]

    def _hold(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        x = self._input(shape)
        if self.device.type == "cpu":
            self._runs.append(lambda: self._cpu_lap(module, x))
        elif self.conditions.mode == "graph":
            self._runs.append(_GraphLap(module, x, self.device))
        else:
            self._runs.append(lambda: _cuda_lap(module, x, self.device))

    def _cpu_lap(self, module: nn.Module, x: torch.Tensor) -> float:
        if not self._own_clock:
            begun = time.perf_counter_ns()
            module(x)
            return (time.perf_counter_ns() - begun) / 1e6
        begun, own = time.perf_counter_ns(), time.thread_time_ns()
        module(x)
        own, wall = time.thread_time_ns() - own, time.perf_counter_ns() - begun
        self._own_ms += own / 1e6
        self._wall_ms += wall / 1e6
        return own / 1e6


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _cuda_lap(module: nn.Module, x: torch.Tensor, device: torch.device) -> float:
    """Time one run including its launches. For small layers and batches, this is the time of the
    processor.
    """
    with torch.cuda.device(device):
        begin, end = _event(), _event()
        torch.cuda.synchronize()
        begin.record()
        module(x)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))


class _GraphLap:
    """Runs a layer several times in one CUDA graph, which gives the device's own time, without launches."""

    def __init__(self, module: nn.Module, x: torch.Tensor, device: torch.device):
        self._device, self._held = device, (module, x)  # a graph holds only addresses
        with torch.cuda.device(device), torch.inference_mode():
            side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # libraries choose and allocate before the capture
                for _ in range(3):
                    module(x)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                for _ in range(GRAPH_RUNS):
                    module(x)

    def __call__(self) -> float:
        with torch.cuda.device(self._device):
            begin, end = _event(), _event()
            torch.cuda.synchronize()
            begin.record()
            self._graph.replay()
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / GRAPH_RUNS
