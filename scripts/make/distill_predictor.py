"""Distil a small predictor that the package can ship from a published one that it cannot.

    python scripts/make/distill_predictor.py mobilenet_v3
    python scripts/make/distill_predictor.py resnet50d

Draws architectures (uniformly; the parents of searches under many limits; half as many neighbours of those as
uniform ones, so that the region that searches visit is covered), labels them with the published predictor,
and trains a small perceptron with ReLU on the same one-hot features from fresh random weights. The student
sees the published predictor's outputs and, for two thirds of the training, how they change from choice to
choice (Czarnecki et al. 2017, *Sobolev Training for Neural Networks*): many more numbers per architecture
than its accuracy alone. Matrices are trained by Muon, products run in bfloat16; the file holds hidden layers
in float16, which load as float32, and the last layer, fitted last by least squares, in float32.

Writes ``embedded_SPACE.safetensors`` and its model card ``embedded_SPACE.json``: sizes, errors and Kendall's
tau on architectures that were not trained on, and the search regret, that is the published predictor's
accuracy of what searches on the published predictor find, minus that of what the same searches find on the
stand-in.

Seeded: the same command gives the same file on one kind of processor with the same torch (2.9 or newer).
"""

import argparse
import itertools
import json
import math
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from scipy import stats
from torch.nn import functional

import topdown_ray
from topdown_ray.algorithms.evolution import generation, initial
from topdown_ray.algorithms.parameters import Sizes
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.rng import Draws
from topdown_ray.assets import sha256_of
from topdown_ray.files import data as package_data
from topdown_ray.spaces.cost import macs
from topdown_ray.spaces.predictor import Predictor, features
from topdown_ray.spaces.predictor_files import RELU, load_predictor
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space

# of the slopes in the loss, and the share of the training that looks at them
SLOPES_WEIGHT, SLOPES_UNTIL = (
    0.3,
    2 / 3,
)
# the searches of the card: the table that users search by, over its useful range
SEARCHES: dict[str, dict[str, Any]] = {
    "mobilenet_v3": {
        "cost": "note10",
        "targets": [60, 50, 40, 30, 20, 15],
        "strategy": "top_down",
        "seeds": 16,
    },
    "resnet50d": {
        "cost": "macs",
        "targets": [3500, 2800, 2200, 1600, 1000, 600],
        "strategy": "top_down",
        "seeds": 16,
    },
}


# --- architectures ------------------------------------------------------------------------------------------


def visited_by_searches(
    space: Space, predictor: Predictor, seeds: range, generations: int = 200
) -> torch.Tensor:
    """Parents of searches under limits spread over the space's range of MACs, at all stages of the
    searches.
    """
    cost = macs(space)
    spread = cost(space.random(20_000, 1)).quantile(
        torch.tensor([0.0005, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.97], dtype=torch.float64)
    )
    sizes = Sizes(population=100, parents=25, mutations=50, mutate_prob=0.1)
    problem = Problem(space, predictor, cost, torch.from_numpy(cost.cheapest()[1]))
    visited = []
    for t, limit in enumerate(spread.tolist()):
        draws = Draws(seeds, space.name)
        state = initial(problem, sizes, limit, draws, t)
        for number in range(1, generations + 1):
            state = generation(problem, sizes, state, limit, draws, t, number)
            if number % 5 == 0 or number < 30:
                visited.append(state.parents.reshape(-1, space.G))
    return torch.unique(space.canonical(torch.cat(visited)), dim=0)


def neighbours(space: Space, genes: torch.Tensor, seed: int) -> torch.Tensor:
    """Every row with a few genes redrawn."""
    generator = torch.Generator().manual_seed(seed)
    redrawn = space.random(len(genes), seed)
    return torch.where(torch.rand(genes.shape, generator=generator) < 0.06, redrawn, genes)


# --- labels -------------------------------------------------------------------------------------------------


class Choices(NamedTuple):
    """Which one-hot features are the choices of one gene, F features."""

    centring: torch.Tensor  # (F, F) subtracts the mean over a gene's choices
    together: torch.Tensor  # (F, F) sums over a gene's choices: 1 for all of them while the gene is active


def choices_of(space: Space, predictor: Predictor) -> Choices:
    """The choices of a space as its predictor reads them."""
    code = predictor.encoding
    centring, together = torch.zeros(2, code.n_features, code.n_features)
    for first, size in zip(code.first, space.sizes, strict=True):
        if first >= 0:
            columns = slice(first, first + size)
            centring[columns, columns] = torch.eye(size) - 1 / size
            together[columns, columns] = 1
    return Choices(centring, together)


class Labelled(NamedTuple):
    """N architectures: features (N, F), standardised accuracy (N,), its slopes from choice to choice (N,
    F).
    """

    inputs: torch.Tensor
    accuracy: torch.Tensor
    slopes: torch.Tensor


def label(
    space: Space, teacher: Predictor, genes: torch.Tensor, choices: Choices
) -> tuple[Labelled, float, float]:
    """The teacher's outputs and slopes, with the mean and the scale that they were standardised by."""
    weights = [torch.from_numpy(layer.weight) for layer in teacher.layers]
    biases = [torch.from_numpy(layer.bias) for layer in teacher.layers]
    parts = []
    for rows in genes.split(4096):
        inputs = hidden = features(space, teacher.encoding, rows)
        masks = []
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            before = functional.linear(hidden, weight, bias)
            masks.append(before > 0)
            hidden = before.relu()
        back = weights[-1].expand(len(rows), -1)
        for weight, mask in zip(reversed(weights[:-1]), reversed(masks), strict=True):
            back = (back * mask) @ weight
        slopes = (back @ choices.centring) * (inputs @ choices.together)
        parts.append(Labelled(inputs.to(torch.uint8), teacher(rows), slopes.half()))
    inputs, accuracy, slopes = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    center, scale = float(accuracy.mean()), float(accuracy.std())
    return Labelled(inputs, (accuracy - center) / scale, slopes.div_(scale)), center, scale


# --- the student --------------------------------------------------------------------------------------------

Parameters = tuple[list[torch.Tensor], list[torch.Tensor]]  # weights, biases


def fresh(widths: list[int], inputs: torch.Tensor) -> Parameters:
    """Random weights; the first layer's units are centred on the data, so that their kinks lie within it."""
    weights = [
        torch.randn(out, into) * math.sqrt(2 / into if i else 1 / 20)
        for i, (into, out) in enumerate(itertools.pairwise(widths))
    ]
    biases = [torch.zeros(len(weight)).uniform_(-0.2, 0.2) for weight in weights]
    biases[0] -= (inputs @ weights[0].T).mean(0)
    return [weight.requires_grad_() for weight in weights], [bias.requires_grad_() for bias in biases]


def losses(
    parameters: Parameters, rows: Labelled, choices: Choices, with_slopes: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mean squared errors of the accuracy and of the slopes (a third of their sum over a gene's choices: one
    random change).
    """
    weights, biases = parameters
    inputs = rows.inputs.float()
    quick = [weight.bfloat16() for weight in weights[:-1]]
    hidden, masks = inputs.bfloat16(), []
    for weight, bias in zip(quick, biases[:-1], strict=True):
        hidden = functional.linear(hidden, weight, bias.bfloat16()).relu()
        masks.append((hidden.detach() > 0).bfloat16())
    error = functional.mse_loss(
        functional.linear(hidden.float(), weights[-1], biases[-1]).view(-1), rows.accuracy
    )
    if not with_slopes:
        return error, None
    back = weights[-1].bfloat16() * masks[-1]
    for weight, mask in zip(reversed(quick[1:]), reversed(masks[:-1]), strict=True):
        back = functional.linear(back, weight.T) * mask
    found = functional.linear(back, (weights[0] @ choices.centring).T.bfloat16()).float() * (
        inputs @ choices.together
    )
    return error, (found - rows.slopes.float()).square().sum(1).mean() / 3


def train(
    data: Labelled, choices: Choices, widths: list[int], steps: int, batch: int, rate: float
) -> Parameters:
    """Muon on the hidden matrices, Adam on the rest; a short warm-up, then a cosine to zero."""
    generator = torch.Generator().manual_seed(1)
    parameters = fresh(
        widths, data.inputs[torch.randperm(len(data.inputs), generator=generator)[:5000]].float()
    )
    weights, biases = parameters
    optimizers = [
        torch.optim.Muon(weights[:-1], lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.Adam([*biases, weights[-1]], lr=rate, betas=(0.9, 0.99)),
    ]
    started, errors = time.monotonic(), []
    batches = (
        rows
        for _ in range(steps)
        for rows in torch.randperm(len(data.inputs), generator=generator).split(batch)[:-1]
    )
    for step, rows in zip(range(steps), batches, strict=False):
        done = step / steps
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
            optimizer.zero_grad()
        error, slopes = losses(
            parameters, Labelled(*(part[rows] for part in data)), choices, done < SLOPES_UNTIL
        )
        (error if slopes is None else error + SLOPES_WEIGHT * slopes).backward()
        for optimizer in optimizers:
            optimizer.step()
        errors.append(float(error.detach()))
        if (step + 1) % max(1, steps // 40) == 0:
            recent = math.sqrt(np.mean(errors[-max(1, steps // 40) :]))
            print(
                f"step {step + 1}: error {recent:.4f} of the spread, {time.monotonic() - started:.0f} s",
                flush=True,
            )
    return [weight.detach() for weight in weights], [bias.detach() for bias in biases]


def rounded(parameters: Parameters, data: Labelled, center: float, scale: float) -> dict[str, torch.Tensor]:
    """The state to write: hidden layers in float16, then the last layer by least squares on what those
    give.
    """
    weights, biases = parameters
    state: dict[str, torch.Tensor] = {}
    n = data.inputs.shape[0]
    hidden = data.inputs[:: max(1, n // 200_000)].float()
    target = data.accuracy[:: max(1, n // 200_000)].double()
    for i, (weight, bias) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
        state[f"{2 * i}.weight"], state[f"{2 * i}.bias"] = weight.half(), bias.half()
        hidden = functional.linear(
            hidden, state[f"{2 * i}.weight"].float(), state[f"{2 * i}.bias"].float()
        ).relu()
    columns = torch.cat([hidden, torch.ones(len(hidden), 1)], dim=1).double()
    gram = columns.T @ columns
    gram.diagonal().add_(1e-6 * gram.diagonal().mean())
    solution = torch.linalg.solve(gram, columns.T @ target) * scale
    last = 2 * (len(weights) - 1)
    state[f"{last}.weight"] = solution[None, :-1].float().contiguous()
    state[f"{last}.bias"] = (solution[-1:] + center).float()
    return state


# --- the card -----------------------------------------------------------------------------------------------


def agreement(student: npt.NDArray[np.float32], teacher: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return errors in points of top-1, Kendall's tau, and the range of the teacher's values. If these are
    equal, tau has no meaning.
    """
    error = 100 * (student.astype(np.float64) - teacher)
    return {
        "architectures": len(teacher),
        "range_points": round(100 * float(teacher.max() - teacher.min()), 4),
        "mean_error_points": round(float(np.abs(error).mean()), 4),
        "rms_error_points": round(float(np.sqrt((error**2).mean())), 4),
        "kendall_tau": round(float(stats.kendalltau(student, teacher).statistic), 4),
    }


def regret(space: Space, teacher: Predictor, student: str, searches: dict[str, Any]) -> dict[str, Any]:
    """The published predictor's accuracy of the answers of searches on the original minus of those on the
    stand-in, in points.
    """
    true = {}
    for predictor in ("published", student):
        frame = topdown_ray.search(space=space.name, predictor=predictor, **searches).sort_values(
            ["seed", "target"]
        )
        genes = torch.from_numpy(np.stack(frame["genes"].to_list()).astype(np.int8))
        true[predictor] = teacher(genes).double().numpy()
    lost = 100 * (true["published"] - true[student])
    return {
        **searches,
        "mean_points": round(float(lost.mean()), 4),
        "standard_error_points": round(float(lost.std(ddof=1) / math.sqrt(len(lost))), 4),
        "worst_points": round(float(lost.max()), 4),
    }


def card(space: Space, teacher: Predictor, path: Path, searches: dict[str, Any]) -> dict[str, Any]:
    """What is measured on the written file."""
    student = load_predictor(str(path), space)
    uniform = space.random(100_000, 99)
    held_out = visited_by_searches(space, teacher, range(1000, 1002))
    held_out = held_out[torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))[:20_000]]
    mine, true = student(uniform).numpy(), teacher(uniform).numpy()
    best = np.argsort(-true, kind="stable")[: len(true) // 100]
    return {
        "uniform": agreement(mine, true),
        "uniform_best_1_percent": agreement(mine[best], true[best]),
        "visited_by_searches": agreement(student(held_out).numpy(), teacher(held_out).numpy()),
        "search_regret": regret(space, teacher, str(path), searches),
    }


def description(
    space: Space, teacher: Predictor, path: Path, widths: list[int], training: dict[str, Any]
) -> dict[str, Any]:
    """What the file is and how it came about."""
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "space": space.name,
        "layers": widths,
        "parameters": sum(into * out + out for into, out in itertools.pairwise(widths)),
        "stored": "hidden layers float16, last layer float32; computes in float32",
        "distilled_from": {"file": space.traits.published.predictor, "sha256": teacher.sha256},
        "trained_from": "fresh random weights, on the published predictor's outputs and their slopes",
        "training": training,
        "command": f"python scripts/make/distill_predictor.py {space.name} --hidden {widths[1]} "
        f"--steps {training['steps']} "
        f"--batch {training['batch']} --rate {training['rate']:g} --uniform {training['uniform']} "
        f"--neighbours {training['neighbours']}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def write_card(path: Path, facts: dict[str, Any]) -> None:
    """Write the card next to the file, and print it."""
    text = json.dumps(facts, indent=1) + "\n"
    path.with_suffix(".json").write_text(text)
    print(text, end="")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "space", choices=[name for name, space in SPACES.items() if space.traits.published.predictor]
    )
    parser.add_argument(
        "--out", type=Path, default=package_data(), help="the folder to write to; default: the package's data"
    )
    parser.add_argument(
        "--measure", action="store_true", help="train nothing: measure the file of --out again"
    )
    parser.add_argument(
        "--hidden", type=int, help="units of each of the three hidden layers; default: 240, ResNet50D 128"
    )
    parser.add_argument("--steps", type=int, help="default: 12000, ResNet50D 3000")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument(
        "--uniform", type=int, default=400_000, help="uniformly drawn architectures to train on"
    )
    parser.add_argument(
        "--neighbours",
        type=int,
        help="neighbours of visited ones to train on; default: half as many as uniform",
    )
    arguments = parser.parse_args()
    resnet = arguments.space == "resnet50d"
    hidden, steps = (
        arguments.hidden or (128 if resnet else 240),
        arguments.steps or (3000 if resnet else 12000),
    )

    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = SPACES[arguments.space]
    teacher = load_predictor("published", space)
    path = arguments.out / f"embedded_{space.name}.safetensors"
    if arguments.measure:
        facts = json.loads(path.with_suffix(".json").read_text())
        if facts["sha256"] != sha256_of(path):
            parser.error(f"{path}: expected SHA-256 {facts['sha256']} (its card), found {sha256_of(path)}")
        with torch.inference_mode():
            write_card(path, facts | card(space, teacher, path, SEARCHES[space.name]))
        return
    choices = choices_of(space, teacher)
    with torch.inference_mode():
        visited = visited_by_searches(space, teacher, range(8))
        n_near = arguments.uniform // 2 if arguments.neighbours is None else arguments.neighbours
        near = neighbours(space, visited.repeat(math.ceil(n_near / len(visited)), 1)[:n_near], 2)
        genes = torch.cat([space.random(arguments.uniform, 0), visited, near])
        print(
            f"{len(genes)} architectures to train on, {len(visited)} of them visited by searches", flush=True
        )
        data, center, scale = label(space, teacher, genes, choices)
    data = Labelled(*(part.clone() for part in data))  # out of inference mode
    widths = [teacher.encoding.n_features, hidden, hidden, hidden, 1]
    parameters = train(data, choices, widths, steps, arguments.batch, arguments.rate)

    arguments.out.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        state = rounded(parameters, data, center, scale)
        metadata = {"space": space.name, "activation": RELU, "distilled_from": teacher.sha256}
        safetensors.torch.save_file(state, path, metadata=metadata)
        measured = card(space, teacher, path, SEARCHES[space.name])
    training = {
        "uniform": arguments.uniform,
        "visited_by_searches": len(visited),
        "neighbours": len(near),
        "steps": steps,
        "batch": arguments.batch,
        "rate": arguments.rate,
    }
    facts = description(space, teacher, path, widths, training) | measured
    write_card(path, facts)


if __name__ == "__main__":
    main()
