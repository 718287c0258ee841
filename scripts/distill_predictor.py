"""Distil a small predictor that the package can ship from a published one that it cannot.

    python scripts/distill_predictor.py mobilenet_v3 topdown_ray/data/embedded_mobilenet_v3.safetensors

Draws architectures (uniformly, and the children of searches under many limits, so that the region that searches visit is
covered), labels them with the published predictor, and trains a small perceptron on the same one-hot features. Prints its
error and rank correlation on architectures that were not trained on.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from scipy import stats
from torch import nn

from topdown_ray import efficiency
from topdown_ray.accuracy import Predictor, features, load_predictor
from topdown_ray.evolution import Problem, Sizes, generation, initial
from topdown_ray.rng import Draws
from topdown_ray.spaces import SPACES, Space


def visited_by_searches(space: Space, predictor: Predictor, seeds: range) -> torch.Tensor:
    """Parents of searches under limits spread over the space's range of MACs, at all stages of the searches."""
    cost = efficiency.macs(space)
    spread = cost(space.random(20_000, 1)).quantile(
        torch.tensor([0.0005, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.97], dtype=torch.float64)
    )
    sizes = Sizes(population=100, parents=25, mutations=50, mutate_prob=0.1)
    problem = Problem(space, predictor, cost, torch.from_numpy(cost.cheapest()[1]))
    visited = []
    for t, limit in enumerate(spread.tolist()):
        draws = Draws(seeds, space.name)
        state = initial(problem, sizes, limit, draws, t)
        for number in range(1, 301):
            state = generation(problem, sizes, state, limit, draws, t, number)
            if number % 5 == 0 or number < 30:
                visited.append(state.parents.reshape(-1, space.G))
    return torch.unique(space.canonical(torch.cat(visited)), dim=0)


def neighbours(space: Space, genes: torch.Tensor, seed: int) -> torch.Tensor:
    """Every row with a few genes redrawn."""
    generator = torch.Generator().manual_seed(seed)
    redrawn = space.random(len(genes), seed)
    return torch.where(torch.rand(genes.shape, generator=generator) < 0.06, redrawn, genes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", choices=["mobilenet_v3", "resnet50d"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--hidden", type=int, default=176)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--uniform", type=int, default=200_000)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    space = SPACES[arguments.space]
    teacher = load_predictor("published", space)
    code = teacher.encoding

    def label(genes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.inference_mode():
            return features(space, code, genes).to(torch.uint8), teacher(genes)

    with torch.inference_mode():
        visited = visited_by_searches(space, teacher, range(16))
        train = torch.cat([space.random(arguments.uniform, 0), visited, neighbours(space, visited, 2)]).clone()
        held_out = visited_by_searches(space, teacher, range(1000, 1004))
    print(f"{len(train)} architectures to train on, {len(visited)} of them visited by searches")
    inputs, targets = label(train)
    center, scale = targets.mean(), targets.std()

    student = nn.Sequential(
        nn.Linear(code.n_features, arguments.hidden),
        nn.ReLU(),
        nn.Linear(arguments.hidden, arguments.hidden),
        nn.ReLU(),
        nn.Linear(arguments.hidden, 1),
    )
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-3)
    batch, start = 1024, time.time()
    steps = arguments.epochs * (len(inputs) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for epoch in range(arguments.epochs):
        order = torch.randperm(len(inputs))[: len(inputs) // batch * batch].view(-1, batch)
        total = 0.0
        for rows in order:
            loss = nn.functional.mse_loss(student(inputs[rows].float()).view(-1), (targets[rows] - center) / scale)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        rmse = (total / len(order)) ** 0.5 * float(scale) * 100
        print(f"epoch {epoch + 1}: rmse {rmse:.4f} points, {time.time() - start:.0f} s", flush=True)

    state = {key: value.detach().clone() for key, value in student.state_dict().items()}
    state["4.weight"] *= scale
    state["4.bias"] = state["4.bias"] * scale + center
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(state, arguments.out, metadata={"space": space.name, "distilled_from": teacher.sha256})

    stand_in = load_predictor(str(arguments.out), space)
    with torch.inference_mode():
        for name, genes in (
            ("uniform", space.random(5_000, 99)),
            ("visited by searches", held_out[torch.randperm(len(held_out))[:5_000]]),
        ):
            mine, true = stand_in(genes).numpy(), teacher(genes).numpy()
            tau = stats.kendalltau(mine, true).statistic
            print(f"{name}: mean error {np.abs(mine - true).mean() * 100:.4f} points, Kendall's tau {tau:.4f}")
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
