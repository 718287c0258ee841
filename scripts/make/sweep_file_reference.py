"""Write docs/reference/sweep-file.md, the reference of the keys of a sweep file, from the models that read
one.

python scripts/make/sweep_file_reference.py [--out FILE]
"""

import argparse
import ast
import inspect
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.algorithms.strategies import STRATEGIES
from topdown_ray.sweeps.hyperparameters import Budget, StrategyEntry
from topdown_ray.sweeps.spec import SweepSpec

ROOT = Path(__file__).parents[2]
TEMPLATE = Path(__file__).with_suffix(".md")
EXAMPLE = ROOT / "scripts" / "sweeps" / "annotated.yaml"

#: How a user writes the keys whose models hold a normal form: type, default and unit.
WRITTEN = {
    "name": ("text", "required"),
    "spaces": ("list of names", "required"),
    "strategies": ("list of names or [mappings](#strategies)", "required"),
    "cost": ("name, list of names, or mapping of spaces to these", "required"),
    "predictor": ("name, or mapping of spaces to names", "`published`"),
    "targets": ("[target sets](#targets), or mapping of spaces or costs to these", "required"),
    "limits": ("mapping of costs to [numbers](#limits), or mapping of spaces to these", "none"),
    "seeds": ("number, list or mapping, see [seeds](#seeds)", "required"),
    "search": ("mapping of [hyper-parameters](#search)", "the defaults of the strategies"),
    "batch": ("`auto`, or whole number, 1 to 4096", "`auto`"),
    "protocol": ("`default` or `notebook`", "`default`"),
    "budget": ("mapping, see [budget](#budget)", "none"),
}
WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping of text to whole numbers",
}

DEFAULTS = """
`{strategy}` has default lengths of its own: {values}. They apply if neither `search` nor the entry of
`strategies` states any of them.
"""


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The texts below the fields of a model and of the models that it derives from."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not (issubclass(owner, BaseModel) and owner is not BaseModel):
            continue
        (tree,) = ast.parse(inspect.getsource(owner)).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return {name: found.get(name, "") for name in model.model_fields}


def _type(schema: dict[str, Any]) -> str:
    """The type and the bounds of a field, from its JSON schema."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind["type"] != "null"]
    (kind,) = kinds
    low, high = kind.get("minimum"), kind.get("maximum")
    text = WORDS[kind["type"]]
    if "exclusiveMinimum" in kind:
        return f"{text}, above {_number(kind['exclusiveMinimum'])}, up to {_number(high)}"
    if low is not None:
        return (
            f"{text}, {_number(low)} to {_number(high)}"
            if high is not None
            else f"{text}, from {_number(low)}"
        )
    return text


def _number(value: float) -> str:
    if isinstance(value, int) and value >= 2**20 and value & (value - 1) == 0:
        return f"2^{value.bit_length() - 1}"
    return f"{value:,.10g}"


def _default(value: object) -> str:
    if value in (None, ""):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and value >= 0.001 else str(value)


def _table(rows: Iterable[tuple[str, str, str, str]]) -> Iterator[str]:
    yield '<div class="reference keys" markdown>\n'  # see docs/stylesheets/site.css
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, *cells in rows:
        yield f"| `{name}` | {' | '.join(cells)} |"
    yield "\n</div>"


def _fields(model: type[BaseModel], names: Sequence[str] = ()) -> Iterator[str]:
    told, schemas = descriptions(model), model.model_json_schema()["properties"]
    fields = {name: model.model_fields[name] for name in names or model.model_fields}
    yield from _table(
        (
            name,
            _type(schemas[name]),
            "required" if field.is_required() else _default(field.default),
            told[name],
        )
        for name, field in fields.items()
    )


def _spec() -> Iterator[str]:
    told = descriptions(SweepSpec)
    assert set(WRITTEN) == set(told)
    yield from _table((name, *written, told[name]) for name, written in WRITTEN.items())


def _own(strategy: str) -> Iterator[str]:
    """What only one strategy reads, and its own defaults."""
    known = STRATEGIES[strategy]
    own = [field for field in known.parameters.model_fields if field not in EvolutionParams.model_fields]
    if own:
        yield f"### Hyper-parameters of `{strategy}`\n"
        yield from _fields(known.parameters, own)
    if known.defaults:
        values = " and ".join(f"`{key}: {value}`" for key, value in known.defaults.items())
        yield DEFAULTS.format(strategy=strategy, values=values).rstrip("\n")


def page() -> str:
    parts = {
        "example": [EXAMPLE.read_text().rstrip("\n")],
        "fields of SweepSpec": _spec(),
        **{
            f"fields of {model.__name__}": _fields(model)
            for model in (StrategyEntry, EvolutionParams, Budget)
        },
        "fields of the strategies": (line for name in STRATEGIES for line in _own(name)),
    }
    text = TEMPLATE.read_text()
    for marker, lines in parts.items():
        text = text.replace(f"<!-- {marker} -->", "\n".join(lines))
    *others, last = (f"`{name}`" for name in STRATEGIES)
    text = text.replace("STRATEGIES", f"{', '.join(others)} and {last}")
    return f"<!-- made by scripts/make/sweep_file_reference.py -->\n\n{text}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reference" / "sweep-file.md")
    parser.parse_args().out.write_text(page())


if __name__ == "__main__":
    main()
