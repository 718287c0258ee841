"""Result folders whose rows were changed."""

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from topdown_ray.store.schema import FRONT, SEARCHES, TRACE

Change = Callable[[pd.DataFrame, pd.DataFrame], None]
TABLES = {"searches": SEARCHES, "trace": TRACE, "front": FRONT}


def rewritten(
    folder: Path,
    out: Path,
    change: Change,
    change_front: Callable[[pd.DataFrame], None] = lambda front: None,
) -> Path:
    """A copy of a result folder as one part, with other values and a checksum that is right for them."""
    shutil.copytree(folder, out)
    frames = []
    for table, schema in TABLES.items():
        parts = sorted((out / table).glob("*.parquet"))
        rows = [schema.empty_table(), *(pq.read_table(part, schema=schema) for part in parts)]
        frames.append(pa.concat_tables(rows).to_pandas())
        for part in parts:
            part.unlink()
    change(*frames[:2])
    change_front(frames[2])
    data = {}
    for frame, (table, schema) in zip(frames, TABLES.items(), strict=True):
        if table != "front" or len(frame):
            sink = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), sink)
            data[table] = sink.getvalue().to_pybytes()
    name = f"changed.{''.join(f'{zlib.crc32(content):08x}' for content in data.values())}.parquet"
    for table, content in data.items():
        (out / table / name).write_bytes(content)
    return out
