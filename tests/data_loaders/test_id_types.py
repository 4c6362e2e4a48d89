"""7 and "7" are two ids: a column that is hashed holds the same type wherever it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from data_loaders.config import DataConfig, IdFeature, IdListFeature
from data_loaders.dataset import Split
from data_loaders.errors import SchemaError, StorageError
from data_loaders.fitting import fitted
from data_loaders.negatives import NegativeSampler
from data_loaders.row_groups import list_row_groups

NUM_ROWS = {"user": 20, "seen": 20}
TYPES = {
    "integer": (pa.int32(), pa.uint64()),
    "string": (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())),
}


def write(path: Path, kind: pa.DataType) -> Path:
    """Four users and what they have seen, all ids of one type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = [7, 8, 7, 9] if pa.types.is_integer(kind) else ["7", "8", "7", "9"]
    plain = pa.string() if pa.types.is_dictionary(kind) else kind
    columns = {
        "user": pa.array(ids, plain).cast(kind),
        "seen": pa.array([ids[:1], [], None, ids], pa.list_(plain)),
        "click": pa.array([0, 1, 1, 0], pa.int8()),
    }
    pq.write_table(pa.table(columns), path)
    return path


def config(root: Path | None, *, id_type: str | None = None, **data: Any) -> DataConfig:
    return DataConfig.model_validate(
        {
            "root": None if root is None else str(root),
            "features": {
                "user": {"kind": "id", "id_type": id_type},
                "seen": {"kind": "id_list", "id_type": id_type},
            },
            "tasks": {"click": {"kind": "binary"}},
        }
        | data
    )


def fit(found: DataConfig) -> DataConfig:
    return fitted(found, num_rows=NUM_ROWS)


@pytest.mark.parametrize("id_type", ["integer", "string"])
def test_the_training_split_says_what_ids_are(tmp_path: Path, id_type: str) -> None:
    """Of whatever width they are; nothing else of the split is asked for."""
    for index, kind in enumerate(TYPES[id_type]):
        write(tmp_path / f"train/{index}.parquet", kind)
    (tmp_path / "train/0-damaged.parquet").write_bytes(b"PAR1")
    found = fit(config(tmp_path))
    for feature in found.features.values():
        assert isinstance(feature, IdFeature | IdListFeature)
        assert feature.id_type == id_type
    assert fit(found) == found
    (tmp_path / "train/0-damaged.parquet").unlink()
    assert list_row_groups(found, split="train").num_examples == 4 * len(TYPES[id_type])


def test_a_recipe_may_say_it_instead(tmp_path: Path) -> None:
    """As a run's own does, whatever another data set holds; and without a log nobody does."""
    write(tmp_path / "train/0.parquet", pa.int64())
    said = config(tmp_path, id_type="string")
    assert fit(said) == said
    with pytest.raises(SchemaError, match=r"column user .*expected a string \(id_type\), found"):
        list_row_groups(said, split="train")
    assert fit(config(None)) == config(None)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_file_of_the_other_type_is_refused_or_skipped(tmp_path: Path, split: Split) -> None:
    """In whichever split it lies."""
    write(tmp_path / "train/0.parquet", pa.int64())
    write(tmp_path / f"{split}/1.parquet", pa.int32())
    other = write(tmp_path / f"{split}/2.parquet", pa.string())
    with pytest.raises(SchemaError) as caught:
        list_row_groups(fit(config(tmp_path)), split=split)
    assert str(caught.value).startswith(
        f"{other}: column user (feature user): expected an integer (id_type), found string; "
    )
    groups = list_row_groups(fit(config(tmp_path, on_error="skip")), split=split)
    assert [(item.uri, item.num_rows) for item in groups.skipped] == [(str(other), 4)]


def test_a_catalogue_of_the_other_type_is_refused(tmp_path: Path) -> None:
    """Else no drawn item would have a row that an item of the log has."""
    write(tmp_path / "train/0.parquet", pa.string())
    catalogue = write(tmp_path / "items.parquet", pa.int64())
    found = fit(config(tmp_path, negatives={"catalogue": "items.parquet"}))
    with pytest.raises(SchemaError, match=rf"{catalogue}: column user .*expected a string"):
        NegativeSampler(found, num_rows=NUM_ROWS)


def test_only_hashed_ids_have_a_type_of_their_own() -> None:
    """Of a vocabulary it is known, and rows are integers."""
    with pytest.raises(ValidationError, match="id_type: needs encoding: hash, found direct"):
        IdFeature(kind="id", encoding="direct", id_type="integer")


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Whoever asks first."""
    with pytest.raises(StorageError, match="does not exist"):
        fit(config(tmp_path / "log"))
