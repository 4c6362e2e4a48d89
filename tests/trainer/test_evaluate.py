"""Which split a run is judged by."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_loaders.config import DataConfig
from data_loaders.dataset import SPLITS, DatasetInfo, SplitInfo, begin_dataset, write_dataset_info
from data_loaders.errors import InputError, SchemaError
from data_loaders.storage import locate
from tests.helpers.logs import toy_recipe, toy_table, write_groups
from trainer.evaluate import final_split, with_best


def test_the_final_split_is_the_last_that_is_there(tmp_path: Path) -> None:
    """Test, else valid, else train; without any the folder is named."""
    config = DataConfig.model_validate(toy_recipe(tmp_path)["data"])
    for split in SPLITS:
        write_groups(tmp_path, split=split, files=[[toy_table(5, seed=1)]])
        assert final_split(config) == split
    for split in SPLITS:
        shutil.rmtree(tmp_path / split)
    with pytest.raises(InputError, match=f"^{tmp_path}: no "):
        final_split(config)


def test_the_best_possible_is_that_of_the_same_labels(tmp_path: Path) -> None:
    """Of a task's column, whatever the task is called; of no labels that count otherwise."""
    splits = {"test": SplitInfo(examples=5, best={"click": {"auc": 0.8}, "purchase": {"auc": 0.7}})}
    write_dataset_info(locate(str(tmp_path)), DatasetInfo(name="toy", splits=splits))
    data = toy_recipe(tmp_path)["data"]
    tasks = {
        "purchase": {"kind": "binary", "column": "click"},
        "bought": {"kind": "binary", "column": "purchase"},
        "click": {"kind": "binary", "example_weight": "price"},
    }
    negatives = {"catalogue": "items.parquet"}
    for section, expected in (
        ({"tasks": tasks}, [0.8, 0.7, None]),
        ({"tasks": tasks, "negatives": negatives}, [None] * 3),
    ):
        config = DataConfig.model_validate({**data, **section})
        found = with_best({name: {"auc": 0.6} for name in tasks}, config=config, split="test")
        assert [found[name]["best_auc"] for name in tasks] == expected


def test_an_incomplete_data_set_has_no_final_split(tmp_path: Path) -> None:
    """Though some of its splits may be there already."""
    begin_dataset(locate(str(tmp_path)), name="toy")
    config = DataConfig.model_validate(toy_recipe(tmp_path)["data"])
    for split in (None, "train"):
        if split is not None:
            write_groups(tmp_path, split=split, files=[[toy_table(5, seed=1)]])
        with pytest.raises(SchemaError, match="this data set is incomplete"):
            final_split(config)
