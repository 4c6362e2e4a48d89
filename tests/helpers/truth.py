"""Labels beside the truth that they were drawn from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def observed(table: pa.Table, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and truth of a task where the label is not null."""
    table = table.filter(pc.field(task).is_valid())
    return table[task].to_numpy(), table[f"truth_{task}"].to_numpy()
