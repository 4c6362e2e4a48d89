"""`polytower prepare` as a person calls it: the guide's example, a cluster that is there, S3."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from cluster.prepare import prepare
from data_loaders.dataset import read_dataset_info
from data_loaders.errors import InputError
from data_loaders.storage import locate
from tests.cluster.conftest import ROOT, Head
from trainer.recipe_file import load_recipe

pytestmark = pytest.mark.ray

GUIDE = ROOT / "docs" / "prepare.md"


def blocks(language: str) -> list[str]:
    """The guide's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the files of the guide's example."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "shop.csv").write_text(blocks("csv")[0])
    (tmp_path / "shop.yaml").write_text(blocks("yaml")[0])
    return tmp_path


def polytower(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "cluster.cli", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_the_guide_shows_what_is_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command on its files prints its lines, and then the recipe can be trained."""
    [command] = [line for line in blocks("sh")[0].splitlines() if " prepare " in line]
    arguments = [argument.strip("'") for argument in command.split()[1:]]
    done = polytower(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip()]
    shown = [" ".join(line.split()) for line in blocks("text")[0].splitlines() if line.strip()]
    assert lines[-len(shown) :] == shown

    monkeypatch.chdir(folder)
    dry = CliRunner().invoke(app, ["train", "shop.yaml", "data.root=log", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, InputError)
    assert "\n" not in str(again.exception)
    assert "log: is not empty" in str(again.exception)


@pytest.mark.slow
def test_a_running_cluster_gives_the_same_bytes(folder: Path, head: Head) -> None:
    """As one that is started for the job, and it goes on running."""
    files = {}
    for name, address in (("here", None), ("there", head.address)):
        out = folder / name
        heard: list[tuple[str, int, int]] = []
        prepare(
            load_recipe(str(folder / "shop.yaml")),
            sources=[str(folder / "raw")],
            out=str(out),
            address=address,
            on_progress=lambda *told, heard=heard: heard.append(told),
        )
        files[name] = {
            path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()
        }
        phases = list(dict.fromkeys(phase for phase, _, _ in heard))
        assert phases == ["cleaning, MiB", "finding duplicates", "splitting", "writing"]
        assert heard[-1][1] == heard[-1][2]
    assert files["here"] == files["there"]


@pytest.mark.slow
@pytest.mark.s3
def test_raw_logs_and_data_sets_may_lie_on_object_storage(folder: Path, s3_root: str) -> None:
    """A glob in a bucket in, a data set in a bucket out; an interrupted one is begun anew."""
    locate(f"{s3_root}/raw/day=1/shop.csv").write_text(blocks("csv")[0])
    arguments = ["prepare", "shop.yaml", "--source", f"{s3_root}/raw/*/*.csv"]
    arguments += ["--out", f"{s3_root}/log"]
    refused = polytower(*arguments, "prepare.ranges.price=[1e9, null]", cwd=folder)
    assert refused.returncode == 2
    assert "rows were rejected" in refused.stderr
    done = polytower(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    info = read_dataset_info(locate(f"{s3_root}/log"))
    assert info is not None
    assert info.splits["train"].examples > 0
    assert not locate(f"{s3_root}/log/_staging").exists()
