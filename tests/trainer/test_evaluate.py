"""Which split a run is judged by."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_loaders.config import DataConfig
from data_loaders.dataset import SPLITS, begin_dataset
from data_loaders.errors import InputError, SchemaError
from data_loaders.storage import locate
from tests.helpers.logs import toy_recipe, toy_table, write_groups
from trainer.evaluate import final_split


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


def test_an_incomplete_data_set_has_no_final_split(tmp_path: Path) -> None:
    """Though some of its splits may be there already."""
    begin_dataset(locate(str(tmp_path)), name="toy")
    config = DataConfig.model_validate(toy_recipe(tmp_path)["data"])
    for split in (None, "train"):
        if split is not None:
            write_groups(tmp_path, split=split, files=[[toy_table(5, seed=1)]])
        with pytest.raises(SchemaError, match="this data set is incomplete"):
            final_split(config)
