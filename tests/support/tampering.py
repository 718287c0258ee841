"""Result folders whose rows were changed."""

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from topdown_ray.store.schema import SEARCHES, TRACE

Change = Callable[[pd.DataFrame, pd.DataFrame], None]


def rewritten(folder: Path, out: Path, change: Change) -> Path:
    """A copy of a result folder as one part, with other values and a checksum that is right for them."""
    shutil.copytree(folder, out)
    frames = []
    for table, schema in (("searches", SEARCHES), ("trace", TRACE)):
        parts = sorted((out / table).glob("*.parquet"))
        frames.append(pa.concat_tables(pq.read_table(part, schema=schema) for part in parts).to_pandas())
        for part in parts:
            part.unlink()
    change(*frames)
    data = []
    for frame, schema in zip(frames, (SEARCHES, TRACE), strict=True):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), sink)
        data.append(sink.getvalue().to_pybytes())
    name = f"changed.{''.join(f'{zlib.crc32(content):08x}' for content in data)}.parquet"
    for table, content in zip(("searches", "trace"), data, strict=True):
        (out / table / name).write_bytes(content)
    return out
