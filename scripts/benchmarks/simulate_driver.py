"""Measure how many searches and actors one driver can serve, with simulated actors.

    python scripts/benchmarks/simulate_driver.py [--searches 10000 100000 1000000] [--actors 1000]
                            [--batch 50] [--seconds 0.4] [--spread 0.2] [--lost 0.001] [--dir FOLDER]
    python scripts/benchmarks/simulate_driver.py --through-ray 2000

The first command runs the real driver with a real plan and real Parquet files. The simulated actors take the
given core seconds for each search, with a lognormal spread between shards, and some of them die. The clock
skips the times in which the driver has nothing to do, so a driver that is too slow leaves its actors idle, as
it would with real ones. The rows have the size and the variety of real rows. Afterwards the finished folder
is resumed, shown by status and loaded, each in a process of its own. The table has one column for each number
of searches; all other measurements go to standard error, one JSON object for each number of searches.

The second command sends this number of shards through real Ray actors that answer at once. It shows what Ray
adds to each shard."""

import argparse
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

POOL = 64  # different batches of rows: as many as go into a merged part
IN_BATCH = 50  # searches


def template(searches: int, batch: int | str) -> tuple[pa.Table, ...]:
    """The rows of one search, made by a real one."""
    from support.simulated_actors import one_search, plan_of

    return one_search(plan_of(searches, batch))


def varied(table: pa.Table, random: np.random.Generator) -> pa.Table:
    """The rows of a search for each of a batch, no two with the same numbers and architectures."""
    table = pa.concat_tables([table] * IN_BATCH).combine_chunks()
    for at, field in enumerate(table.schema):
        if pa.types.is_floating(field.type) and field.name not in ("target", "gradient_rows"):
            values = table[field.name].to_numpy() * random.uniform(0.9, 1.1, len(table)).astype(np.float32)
            table = table.set_column(at, field, pa.array(values, field.type))
        elif field.name == "arch":
            texts = [
                re.sub(r"(?<=[ \[])[34567](?=[,\]])", lambda _: str(random.choice([3, 5, 7])), text)
                for text in table["arch"].to_pylist()
            ]
            table = table.set_column(at, field, pa.array(texts))
        elif field.name == "genes":
            genes = random.integers(0, 3, (len(table), len(table["genes"][0]))).tolist()
            table = table.set_column(at, field, pa.array(genes, field.type))
    return table


def memory_mib() -> int:
    """Resident, of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20


def simulate(searches: int, out: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The real driver over simulated actors, into a folder."""
    from support.simulated_actors import SimulatedActors, named, plan_of

    from topdown_ray.store.folder import ResultFolder
    from topdown_ray.sweeps import driver

    # a driver does not search
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as elsewhere:
        tables = elsewhere.submit(template, searches, arguments.batch).result()
    started, random = time.perf_counter(), np.random.default_rng(0)
    pool = [tuple(varied(table, random) for table in tables) for _ in range(POOL)]
    plan = plan_of(searches, arguments.batch)
    planned_s = time.perf_counter() - started
    shards: set[str] = set()

    def rows(shard: Any) -> tuple[pa.Table, ...]:
        shards.add(shard.shard_id)
        batches = range(len(shards), len(shards) + -(-len(shard.seeds) // IN_BATCH))
        drawn = [pa.concat_tables(each) for each in zip(*(pool[k % POOL] for k in batches), strict=True)]
        return tuple(
            named(each.slice(0, table.num_rows * len(shard.seeds)), shard)
            for each, table in zip(drawn, tables, strict=True)
        )

    actors = SimulatedActors(
        arguments.actors, arguments.seconds, arguments.spread, arguments.lost, arguments.hung, rows
    )
    memory: list[tuple[int, int]] = []
    spent: list[tuple[int, float]] = []  # CPU seconds

    def watch(progress: driver.Progress) -> None:
        if not memory or progress.done >= memory[-1][0] + progress.total // 20:
            memory.append((progress.done, memory_mib()))
            spent.append((actors.shards, round(time.process_time() - actors.own_cpu_s, 2)))

    results = ResultFolder(out)
    results.open(plan.manifest(), resume=True)
    written = {"shards": 0, "merged": 0}
    write = results.place.write

    def counted(relative: str, data: Any) -> None:
        if relative.endswith(".parquet"):
            own = relative.partition("/")[2].partition(".")[0] in shards
            written["shards" if own else "merged"] += len(data)
        write(relative, data)

    results.place.write = counted  # type: ignore[method-assign]
    wall, cpu = time.perf_counter(), time.process_time()
    summary = driver.run(plan, results, actors, watch)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    files = list(out.rglob("*.parquet"))
    lies = sum(path.stat().st_size for path in files)
    driver_s = summary.wall_s - actors.waited_s
    return {
        "actors": arguments.actors,
        "searches": summary.progress.done,
        "shards": actors.shards,
        "searches a shard, median": float(np.median(actors.sizes)),
        "shard_s, mean": round(actors.busy_s / actors.shards, 2),
        "lost": summary.progress.losses,
        "simulated wall_s": round(summary.wall_s, 1),
        "actors busy": round(actors.busy_s / summary.wall_s / arguments.actors, 4),
        "driver awake, share of the wall": round(driver_s / summary.wall_s, 4),
        "driver ms a shard": round(1000 * driver_s / actors.shards, 3),
        "driver cpu ms a shard": round(1000 * (cpu - actors.own_cpu_s) / actors.shards, 3),
        "shards a second that it could feed": round(actors.shards / driver_s, 1),
        "actors that it could feed": round(arguments.actors * summary.wall_s / driver_s),
        "real wall_s with the simulation": round(wall, 1),
        "plan and rows s": round(planned_s, 2),
        "MiB in the folder": round(lies / 2**20, 1),
        "files": len(files),
        "bytes written by shards / in the folder": round(written["shards"] / lies, 3),
        "bytes written by merging / in the folder": round(written["merged"] / lies, 3),
        "resident MiB, mean of the second half": round(
            float(np.mean([mib for done, mib in memory if 2 * done >= summary.progress.total]))
        ),
        "resident MiB by searches done": memory,
        "CPU s by shards begun": spent,
    }


# measured in the process itself, because the kernel's counts for a child start with those of its parent
PEAK = """
import re
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def process(code: str, *arguments: str) -> dict[str, Any]:
    """Run Python in a process of its own: what it prints, its seconds, CPU seconds and memory."""
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", code + PEAK, *arguments], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdout
    *said, peak = child.stdout.read().decode().split()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"a process of this benchmark ended with status {status}")
    return {
        "said": " ".join(said),
        "s": round(time.perf_counter() - started, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak MiB": int(peak) // 1024,
    }


AFTERWARDS: dict[str, str] = {
    # verify all parts and know what has rows
    "resume, the tables": """
import sys
from topdown_ray.store.parts import Parts
from topdown_ray.store.place import Place
print(len(Parts(Place(sys.argv[1])).resume().finished))
""",
    # the whole driver on a sweep of which nothing is pending
    "resume, the driver": """
import sys
sys.path.insert(0, "tests")
from support.simulated_actors import plan_of
from topdown_ray.store.folder import ResultFolder
from topdown_ray.sweeps import driver
plan = plan_of(int(sys.argv[2]), int(sys.argv[3]))
folder = ResultFolder(sys.argv[1])
folder.open(plan.manifest(), resume=True)
print(driver.run(plan, folder, driver.in_process(plan)).progress.done)
""",
    "import of the driver": "import topdown_ray.sweeps.driver",
    "status": """
import sys
from topdown_ray.sweeps.status import Reader
print(Reader(sys.argv[1]).read().done)
""",
    "import of status": "import topdown_ray.sweeps.status",
    "load, 1 % of the seeds, 2 columns": """
import sys
from topdown_ray.store.results import load
seeds = range(int(sys.argv[2]) // 1000)
results = load(sys.argv[1], columns=["accuracy", "best_accuracy"], where={"seed": seeds})
print(len(results.searches), len(results.trace))
""",
    "import of load": "import topdown_ray.store.results",
}


def measure(searches: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One number of searches: the sweep in this process, what follows in others."""
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        out = Path(folder) / "out"
        found = simulate(searches, out, arguments)
        batch = str(50 if arguments.batch == "auto" else arguments.batch)
        for name, code in AFTERWARDS.items():
            found[name] = process(code, str(out), str(searches), batch)
    return found


#: The columns of the table.
COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "searches": lambda row: f"{row['searches']:,}",
    "shards": lambda row: f"{row['shards']:,}",
    "CPU a shard (ms)": lambda row: f"{row['driver cpu ms a shard']:.1f}",
    "memory (MiB)": lambda row: f"{row['resident MiB, mean of the second half']:,}",
    "merging (writes of a byte)": lambda row: f"{row['bytes written by merging / in the folder']:.2f}",
    "folder (MiB), files": lambda row: f"{row['MiB in the folder']:,.0f}, {row['files']:,}",
    **{
        f"{name} (CPU s, peak MiB)": lambda row, name=name: (
            f"{row[name]['cpu_s']:.1f}, {row[name]['peak MiB']:,}"
        )
        for name in AFTERWARDS
        if not name.startswith("import")
    },
}


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = [[name, *(cell(row) for row in rows)] for name, cell in COLUMNS.items()]
    head, *others = [" | ".join(["", *line, ""]).strip() for line in lines]
    return "\n".join([head, " | ".join(["", "---", *["---:"] * len(rows), ""]).strip(), *others])


def through_ray(shards: int, batch: int) -> dict[str, Any]:
    """Shards through Ray actors that answer at once with the rows of a batch."""
    from support.simulated_actors import one_search, plan_of, rows_of

    from topdown_ray import cluster
    from topdown_ray.store.folder import ResultFolder
    from topdown_ray.sweeps import driver
    from topdown_ray.sweeps.groups import Shard

    plan = plan_of(shards * batch, batch)
    tables = one_search(plan)

    def answer(shard: Shard) -> tuple[pa.Table, ...]:
        return tuple(rows_of(table, shard) for table in tables)

    class Discarding(ResultFolder):
        def write(self, shard_id: str, searches: pa.Table, *others: pa.Table) -> None:
            """Parquet is not what is measured here."""

    with cluster.connected("local"), tempfile.TemporaryDirectory() as folder:
        pool = cluster.Pool(lambda device: answer, {"cpu": 2})
        pool.until_ready()
        results = Discarding(Path(folder) / "out")
        results.open(plan.manifest(), resume=True)
        cpu = time.process_time()
        summary = driver.run(plan, results, pool)
        cpu = time.process_time() - cpu
        pool.close()
    return {
        "shards": shards,
        "searches a shard": batch,
        "shards a second": round(shards / summary.wall_s, 1),
        "driver cpu ms a shard": round(1000 * cpu / shards, 3),
        "actors' busy ms a shard": round(1000 * summary.busy_s / shards, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actors", type=int, default=1000, help="number of actors (default 1000)")
    parser.add_argument(
        "--searches", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="numbers of searches"
    )
    parser.add_argument("--seconds", type=float, default=0.4, help="core seconds of a search (default 0.4)")
    parser.add_argument(
        "--spread",
        type=float,
        default=0.2,
        help="standard deviation of the logarithm of the shards' times (default 0.2)",
    )
    parser.add_argument(
        "--lost", type=float, default=0.001, help="fraction of shards whose actor dies (default 0.001)"
    )
    parser.add_argument(
        "--hung", type=float, default=0.0, help="fraction of shards whose actor hangs (default 0)"
    )
    parser.add_argument(
        "--batch",
        type=lambda text: text if text == "auto" else int(text),
        default=50,
        help="searches in a shard, or auto (default 50)",
    )
    parser.add_argument("--dir", help="folder for the Parquet files (default: the system's temporary folder)")
    parser.add_argument(
        "--json", action="store_true", help="print all measurements as JSON instead of the table"
    )
    parser.add_argument(
        "--through-ray",
        type=int,
        metavar="SHARDS",
        help="number of shards; measure what Ray adds to each of them instead",
    )
    arguments = parser.parse_args()
    if arguments.through_ray:
        found = through_ray(arguments.through_ray, 25 if arguments.batch == "auto" else arguments.batch)
        print(json.dumps(found, indent=2))
        return
    rows = []
    for searches in arguments.searches:  # each in a process that has measured nothing before
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            rows.append(fresh.submit(measure, searches, arguments).result())
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(json.dumps(rows, indent=2) if arguments.json else table(rows))


if __name__ == "__main__":
    main()
