"""List the sections of a report in the order of the page.

Each section is one function from a :class:`Context` to a :class:`Section`, or to None if the folders contain
nothing for it."""

from __future__ import annotations

from collections.abc import Callable

from topdown_ray.report.context import Context
from topdown_ray.report.page import Section
from topdown_ray.report.sections.accuracy import accuracy
from topdown_ray.report.sections.anytime import anytime
from topdown_ray.report.sections.architectures import architectures
from topdown_ray.report.sections.baselines import baselines
from topdown_ray.report.sections.devices import devices
from topdown_ray.report.sections.differences import differences
from topdown_ray.report.sections.evaluations import evaluations
from topdown_ray.report.sections.explorer import explorer
from topdown_ray.report.sections.fronts import fronts
from topdown_ray.report.sections.overview import overview
from topdown_ray.report.sections.provenance import provenance
from topdown_ray.report.sections.running_time import running_time
from topdown_ray.report.sections.sweeps import sweeps

#: The functions of all sections, in the order of the page.
SECTIONS: tuple[Callable[[Context], Section | None], ...] = (
    overview,
    sweeps,
    explorer,
    architectures,
    accuracy,
    differences,
    baselines,
    running_time,
    anytime,
    fronts,
    devices,
    evaluations,
    provenance,
)
