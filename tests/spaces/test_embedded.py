"""The embedded predictors: their cards say what is true of them."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import topdown_ray
from topdown_ray import assets
from topdown_ray.files import data
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.spaces.registry import SPACES

PUBLISHED = {name: space.traits.published.predictor for name, space in SPACES.items()}
NAMES = [name for name, file in PUBLISHED.items() if file is not None]


def card(name: str) -> dict[str, Any]:
    return dict(json.loads((data(f"embedded_{name}.json")).read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_of_the_file(name: str) -> None:
    facts, path = card(name), data(f"embedded_{name}.safetensors")
    assert assets.sha256_of(path) == facts["sha256"]
    assert path.stat().st_size == facts["bytes"] < 300_000
    assert facts["distilled_from"]["sha256"] == assets.ASSETS[str(PUBLISHED[name])].sha256
    predictor = load_predictor("embedded", SPACES[name])
    widths = [predictor.layers[0].weight.shape[1], *(len(layer.bias) for layer in predictor.layers)]
    assert len(widths) == len(facts["layers"])
    # dead units are left out
    assert all(found <= stated for found, stated in zip(widths, facts["layers"], strict=True))
    for layer in predictor.layers:
        assert layer.weight.dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_its_own(name: str, published: object) -> None:
    """No unit of its first layer is one of the published predictor's: the most alike pair of rows points in
    different directions.
    """
    mine, theirs = (load_predictor(kind, SPACES[name]).layers[0].weight for kind in ("embedded", "published"))
    mine, theirs = (w / np.linalg.norm(w, axis=1, keepdims=True).clip(1e-12) for w in (mine, theirs))
    assert np.abs(mine @ theirs.T).max() < 0.99


@pytest.mark.parametrize("name", NAMES)
def test_tau_and_error_are_those_of_the_card(name: str, published: object) -> None:
    """On architectures that neither the training nor the card saw.

    The variance of Kendall's tau of n pairs is at most 2 (1 - tau^2) / n (Kendall 1970): four standard
    errors, a false alarm in less than one of 10,000 draws."""
    space, facts = SPACES[name], card(name)["uniform"]
    genes = space.random(20_000, 2024)
    with torch.inference_mode():
        mine, true = (
            load_predictor("embedded", space)(genes).numpy(),
            load_predictor("published", space)(genes).numpy(),
        )
    tau = stats.kendalltau(mine, true).statistic
    assert abs(tau - facts["kendall_tau"]) < 4 * math.sqrt(2 * (1 - facts["kendall_tau"] ** 2) / 20_000)
    error = 100 * np.sqrt(np.square(mine.astype(float) - true).mean())
    assert error == pytest.approx(facts["rms_error_points"], rel=0.15)


@pytest.mark.parametrize(
    ("name", "cost", "targets"), [("mobilenet_v3", "note10", [40, 25]), ("resnet50d", "macs", [2500, 1200])]
)
def test_searches_on_it_lose_little(name: str, cost: str, targets: list[float], published: object) -> None:
    """The published predictor's accuracy of what small searches find, against searches on the original: fixed
    seeds.
    """
    space = SPACES[name]
    true = {}
    for predictor in ("published", "embedded"):
        frame = topdown_ray.search(
            space=name,
            cost=cost,
            targets=targets,
            predictor=predictor,
            seeds=8,
            generations=150,
            warm_generations=60,
        )
        assert frame["predictor_name"].str.startswith(predictor).all()
        genes = torch.from_numpy(
            np.stack(frame.sort_values(["seed", "target"])["genes"].to_list()).astype(np.int8)
        )
        true[predictor] = load_predictor("published", space)(genes).double()
    lost = 100 * (true["published"] - true["embedded"])
    stated = card(name)["search_regret"]
    margin = 4 * float(lost.std()) / math.sqrt(len(lost)) + 4 * stated["standard_error_points"]
    assert float(lost.mean()) < max(stated["mean_points"], 0) + margin


def test_what_the_resnet_stand_in_reaches() -> None:
    facts = card("resnet50d")
    assert facts["uniform"]["kendall_tau"] >= 0.99
    assert facts["search_regret"]["mean_points"] + 2 * facts["search_regret"]["standard_error_points"] < 0.1
