"""Train accuracy predictors on measured subnets: OFA's three-layer perceptron on the one-hot architecture.

A seed splits the distinct architectures into three sets: most are trained on, some decide when to stop, and
the held-out ones only judge the result. The checkpoint can be given as ``predictor:`` of a sweep. A model
card and a picture of predicted against measured accuracies are written next to it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import nn

from topdown_ray import assets
from topdown_ray.errors import UserError
from topdown_ray.files import brief_path, check_output
from topdown_ray.networks.dataset import Dataset, read_dataset
from topdown_ray.spaces.predictor import encoding, features
from topdown_ray.spaces.predictor_files import RELU, load_predictor
from topdown_ray.spaces.space import Space
from topdown_ray.spaces.tiles import one_thread
from topdown_ray.stats import Agreement, agreement

LEAST_JUDGES = 30  # held-out architectures: with fewer, a warning is printed
LEAST_RANKED = 10  # held-out architectures: with fewer, there is no rank correlation

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Training:
    """How a predictor is trained."""

    hidden: int = 400
    epochs: int = 1000  # at most
    patience: int = 100  # epochs without a better error on the stopping rows
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    batch: int = 64
    held_out: float = 0.2  # the share of architectures that only judge the predictor
    stopping: float = 0.15  # the share of the others that decide when to stop
    seed: int = 0


@dataclass(frozen=True)
class Learned:
    """The files and figures of a trained predictor."""

    path: Path
    sha256: str
    held_out: Agreement  # rank correlations: NaN below LEAST_RANKED architectures
    trained: Agreement
    epochs: int  # of the weights kept
    rows: int  # of the data set
    architectures: int  # distinct ones among them

    @property
    def warning(self) -> str:
        """A warning if there are too few held-out architectures, else an empty text."""
        n = self.held_out.n
        return (
            ""
            if n >= LEAST_JUDGES
            else f"{n} held-out architectures are too few to judge a predictor; expected at least "
            f"{LEAST_JUDGES}"
        )


def train(
    dataset: Path,
    space: Space,
    out: Path,
    training: Training | None = None,
    show: Callable[[int, int, float], None] | None = None,
) -> Learned:
    """Train a predictor and write the checkpoint, its card and its picture, either all of them or none. show:
    called with (epoch, most epochs, best error so far).

    The result follows from the rows and the seed alone, because training uses one thread and a fixed order.
    Raises UserError.
    """
    check_output(out, "--out")
    training = Training() if training is None else training
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: expected a .safetensors file, found {out.suffix or 'no suffix'}")
    for name, share in (("--held-out", training.held_out), ("stopping", training.stopping)):
        if not 0 < share < 0.9:
            raise UserError(f"{name}: expected a share between 0 and 0.9, found {share:g}")
    data = read_dataset(dataset, space)
    genes, top1 = data.genes, data.top1
    order = np.random.default_rng(training.seed).permutation(len(genes))
    n_held = max(2, round(training.held_out * len(order)))
    n_stop = max(2, round(training.stopping * (len(order) - n_held)))
    held, stop, fit = np.split(order, [n_held, n_held + n_stop])
    if len(fit) < 2:
        found = f"{training.held_out:g} and {training.stopping:g} of {len(order)} architectures"
        raise UserError(f"held-out, stopping: expected shares that leave rows to train on, found {found}")
    with _folder_beside(out) as folder:
        state, epochs = _network(space, genes, top1, fit, stop, training, show)
        unseen = _tie_unseen(space, genes[torch.from_numpy(fit)], state)
        rows = data.rows
        metadata = {
            "space": space.name,
            "activation": RELU,
            "normalisation": json.dumps(
                {"mean": float(top1[fit].mean()), "scale": _scale(top1[fit]), "folded": True}
            ),
            "training": json.dumps(asdict(training)),
            "dataset_sha256": assets.sha256_of(dataset),
            "weights_sha256": str(rows["weights_sha256"].iloc[0]),
            "data_sha256": str(rows["data_sha256"].iloc[0]),
        }
        new = folder / out.name
        new.write_bytes(_in_order(safetensors.torch.save(state, metadata)))
        predictor = load_predictor(str(new), space)  # judged in the form that sweeps read
        with one_thread(), torch.inference_mode():
            predicted = predictor(genes).double().numpy()
        judged, trained = agreement(predicted[held], top1[held]), agreement(predicted[fit], top1[fit])
        if judged.n < LEAST_RANKED:
            judged = replace(judged, kendall=float("nan"), spearman=float("nan"))
        learned = Learned(out, predictor.sha256, judged, trained, epochs, len(rows), len(genes))
        _picture(new.with_suffix(".svg"), space, predicted, top1, fit, held)
        card = _card(learned, space, dataset, data, training, unseen, (len(fit), len(stop)))
        new.with_suffix(".md").write_text(card)
        for suffix in (".svg", ".md", out.suffix):
            new.with_suffix(suffix).replace(out.with_suffix(suffix))
    return learned


@contextlib.contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """Yield a temporary folder for files that are then moved to the folder of ``out``. Raises UserError
    before the training.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".svg", ".md", out.suffix):
            if out.with_suffix(suffix).is_dir():
                raise UserError(
                    f"--out {out}: expected a path for three files, found the folder "
                    f"{out.with_suffix(suffix).name}"
                )
        with tempfile.TemporaryDirectory(prefix=f".{out.stem[:100]}.", dir=out.parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise UserError(
            f"--out {brief_path(out)}: expected a path that can be written, found {error.strerror}"
        ) from error


def _scale(top1: Floats) -> float:
    """Return what accuracies are divided by for the training."""
    return float(top1.std()) or 1.0


def _network(
    space: Space,
    genes: torch.Tensor,
    top1: Floats,
    fit: Places,
    stop: Places,
    training: Training,
    show: Callable[[int, int, float], None] | None,
) -> tuple[dict[str, torch.Tensor], int]:
    """Return the state of a trained predictor, and the number of epochs behind it.

    Three layers of one unit follow the perceptron: 1 - relu(1 - relu(y)) limits y to values from 0 to 1, so
    that architectures unlike those of the training set also get a value that is an accuracy.
    """
    inputs = features(space, encoding(space, space), genes)
    center, scale = float(top1[fit].mean()), _scale(top1[fit])
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        targets = torch.from_numpy((top1 - center) / scale).float()
        network, epochs = _fit(inputs, targets, fit, stop, training, show, scale)
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    last = len(network) - 1
    state[f"{last}.weight"] *= scale
    state[f"{last}.bias"] = state[f"{last}.bias"] * scale + center
    for i in (last + 2, last + 4):
        state |= {f"{i}.weight": -torch.ones(1, 1), f"{i}.bias": torch.ones(1)}
    return state, epochs


def _in_order(content: bytes) -> bytes:
    """Write the metadata of a safetensors file in sorted order. safetensors writes them in any order, and the
    hash of the file is an identity.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _fit(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    fit: Places,
    stop: Places,
    training: Training,
    show: Callable[[int, int, float], None] | None,
    scale: float,
) -> tuple[nn.Sequential, int]:
    sizes = [inputs.shape[1], training.hidden, training.hidden, training.hidden, 1]
    layers: list[nn.Module] = []
    for ins, outs in itertools.pairwise(sizes):
        layers += [nn.Linear(ins, outs), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    fit_rows, stop_rows = torch.from_numpy(fit), torch.from_numpy(stop)
    best, best_epoch, kept = float("inf"), 0, network.state_dict()
    for epoch in range(1, training.epochs + 1):
        for part in torch.split(fit_rows[torch.randperm(len(fit_rows))], training.batch):
            loss = nn.functional.mse_loss(network(inputs[part]).view(-1), targets[part])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.inference_mode():
            error = float((network(inputs[stop_rows]).view(-1) - targets[stop_rows]).abs().mean()) * scale
        if error < best:
            best, best_epoch = error, epoch
            kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        if show is not None:
            show(epoch, training.epochs, best)
        if epoch - best_epoch >= training.patience:
            break
    network.load_state_dict(kept)
    return network, best_epoch


def _tie_unseen(space: Space, genes: torch.Tensor, state: dict[str, torch.Tensor]) -> list[str]:
    """Give each choice that no training row has the weights of the nearest one that was seen. Return the
    names of these choices for the card.

    Their own weights would still be the random initial ones, and searches would exploit them.
    """
    code, unseen = encoding(space, space), []
    active = space.active(genes)
    for g, (gene, first) in enumerate(zip(space.genes, code.first, strict=True)):
        if first < 0:
            continue
        seen = sorted(set(genes[active[:, g], g].tolist()))
        for choice in range(len(gene.choices)):
            if choice not in seen:
                unseen.append(f"{gene.key}[{gene.position}] = {gene.choices[choice]}")
                if seen:
                    nearest = min(seen, key=lambda other: (abs(other - choice), other))
                    state["0.weight"][:, first + choice] = state["0.weight"][:, first + nearest]
    return unseen


def _picture(path: Path, space: Space, predicted: Floats, top1: Floats, fit: Places, held: Places) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 4.0), layout="constrained")
    ax = figure.add_subplot()
    for rows, name, colour, marker in (
        (fit, "trained on", "#8c8c8c", "."),
        (held, "held out", "#0072b2", "o"),
    ):
        ax.plot(
            100 * top1[rows],
            100 * predicted[rows],
            marker,
            color=colour,
            markersize=4,
            linestyle="none",
            label=name,
        )
    ends = [100 * min(top1.min(), predicted.min()), 100 * max(top1.max(), predicted.max())]
    ax.plot(ends, ends, color="#010203", linewidth=0.8)
    ax.set(xlabel="measured top-1 (%)", ylabel="predicted top-1 (%)", title=space.name)
    ax.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _card(
    learned: Learned,
    space: Space,
    dataset: Path,
    data: Dataset,
    training: Training,
    unseen: list[str],
    counts: tuple[int, int],
) -> str:
    held, trained = learned.held_out, learned.trained
    rows, top1 = data.rows, data.top1
    lines = [
        f"# Accuracy predictor of {space.name}",
        "",
        f"Predicts the top-1 accuracy that subnets of `{rows['weights_name'].iloc[0]}` have on the images of "
        f"`{rows['data_name'].iloc[0]}` ({rows['n_images'].iloc[0]} validation images). It is not valid for "
        "other weights or images.",
        "",
        f"`predictor: {learned.path.name}` in a sweep file selects it. Its SHA-256 is {learned.sha256}.",
        "",
        "| | architectures | Kendall's tau | Spearman | mean absolute error (points) | bias (points) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, part in (("held out", held), ("trained on", trained)):
        ranks = f"{part.kendall:.3f} | {part.spearman:.3f}" if part.n >= LEAST_RANKED else "too few | too few"
        figures = f"{ranks} | {100 * part.mae:.2f} | {100 * part.bias:+.2f}"
        lines.append(f"| {name} | {part.n} | {figures} |")
    lines += [
        "",
        f"The measured top-1 accuracies are between {100 * top1.min():.2f} and {100 * top1.max():.2f} %, "
        f"with a standard deviation of {100 * top1.std():.2f} percentage points. "
        f"{counts[0]} architectures were trained on, {counts[1]} decided when to stop (epoch "
        f"{learned.epochs}), and {held.n} were held out.",
        "",
        f"The predictor is a perceptron on one-hot features with three hidden layers of {training.hidden} "
        "units and ReLU. Its output is limited to values from 0 to 1. It was trained with AdamW, learning "
        f"rate {training.learning_rate:g}, weight decay {training.weight_decay:g}, batch size "
        f"{training.batch} and seed {training.seed}.",
        "",
        f"Data set: `{dataset.name}`, {data.in_words}. Weights SHA-256 {rows['weights_sha256'].iloc[0]}, "
        "images SHA-256 "
        f"{rows['data_sha256'].iloc[0]}.",
        "",
        f"![Predicted against measured]({learned.path.with_suffix('.svg').name})",
    ]
    if learned.warning:
        lines += ["", f"**{learned.warning}.**"]
    if learned.rows > learned.architectures:
        lines += [
            "",
            "Measurements of the same architecture were averaged, weighted by their numbers of images, "
            "before the split.",
        ]
    if unseen:
        shown = ", ".join(unseen[:12]) + (", ..." if len(unseen) > 12 else "")
        lines += [
            "",
            f"{len(unseen)} choices are in no training row. The predictor treats each of them as the nearest "
            f"choice that is in one: {shown}.",
        ]
    if str(rows["weights_sha256"].iloc[0]).startswith("random:"):
        lines += ["", "**The supernet had random weights, so these accuracies are meaningless.**"]
    return "\n".join(lines) + "\n"
