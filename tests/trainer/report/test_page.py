"""A report's HTML: every section, each number where it belongs, and nothing from elsewhere."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from data_loaders.errors import InputError
from data_loaders.storage import locate
from tests.trainer.report.runs import FIGURES, NAME, write_run
from trainer.charts import Panel, line_chart
from trainer.report import read_run, report_page, task_sections
from trainer.report.page import SECTIONS

VOID = {"meta", "link", "br", "hr", "img"}
# what SVG is made of may close itself
REFERENCES = ("src", "href", "xlink:href", "data", "action", "srcset", "poster")


class Page(HTMLParser):
    """What is in a page, and whether its elements close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.section = ""
        self.figures: Counter[str] = Counter()
        self.tags: set[str] = set()
        self.cells: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.references += [value or "" for name, value in attrs if name in REFERENCES]
        if tag == "section":
            self.section = found["id"] or ""
        if tag == "svg":
            self.images.append(found)
            self.figures[self.section] += 1
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data


def page_of(folder: Path) -> tuple[str, Page]:
    text = report_page(read_run(locate(str(folder))))
    return text, Page(text)


def test_a_page_has_every_section_and_needs_no_other_file(tmp_path: Path) -> None:
    """Contents link to all of them; images have sizes and say what they show."""
    text, page = page_of(write_run(tmp_path / "run"))
    assert set(SECTIONS) <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert [f"#{name}" for name in SECTIONS] == [
        found for found in page.references if found[1:] in SECTIONS
    ]
    for reference in page.references:
        assert reference == "data:," or reference[1:] in page.ids
    for target in re.findall(r"url\(([^)]*)\)", text):
        assert target.strip("'\"")[1:] in page.ids
    assert not page.tags & {"script", "iframe", "object", "embed", "metadata"}
    assert "@import" not in text
    assert page.figures == FIGURES
    for image in page.images:
        assert image["role"] == "img"
        assert image["aria-label"]
        assert all(
            float((image[side] or "").removesuffix("pt")) > 0 for side in ("width", "height")
        )


def test_numbers_stand_in_their_places(tmp_path: Path) -> None:
    """Text of the run is shown as text, whatever it holds."""
    _, page = page_of(write_run(tmp_path / "run"))
    assert NAME in page.text
    assert "b" not in page.tags
    for fact in ("finished", "320 examples per second", "4.2% of the time", "shared_bottom"):
        assert fact in page.text
    [click] = [row for row in page.cells if row[:3] == ["click", "64", "0.1000"]]
    assert click[3:] == ["0.8000", "0.8765"]
    [watch] = [row for row in page.cells if row[0] == "watch" and len(row) == 6]
    assert watch[1:] == ["40", "0.0333", "0.0667", "0.5000", "0.2500"]
    for feature, known, new in (("user", "0.7800", "0.5400"), ("item", "0.7600", "0.5200")):
        [row] = [row for row in page.cells if row[:2] == [feature, "click"]]
        assert row[2:] == ["AUC", "40", known, "24", new]
    [row] = [row for row in page.cells if row[0] == "item" and len(row) == 4]
    assert row[1:] == ["0.0625", "0.1625", "0.2625"]
    [table] = [row for row in page.cells if row[:2] == ["user", "1,003"]]
    assert table[2:] == ["8", "row_wise", "0, 1", "0.0600"]
    assert "shared_tower" in page.text


def test_sections_without_data_are_left_out(tmp_path: Path) -> None:
    """Of a run that has only begun, of one with reports but no end, of one without gates."""
    folder = write_run(tmp_path / "begun", is_finished=False)
    text, page = page_of(folder)
    assert [name for name in SECTIONS if name in page.ids] == ["summary", "recipe"]
    assert "not finished" in text
    folder = write_run(tmp_path / "running")
    (folder / "summary.json").unlink()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "importance" not in line]
    for line in lines[:-1]:
        line.pop("gates", None)
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    text, page = page_of(folder)
    assert set(SECTIONS) - set(page.ids) == {"gates", "importance"}
    assert "the newest validation, at step 30" in text
    (folder / "metrics.jsonl").write_text(json.dumps(lines[0]) + "\n")
    _, page = page_of(folder)
    assert set(SECTIONS) - set(page.ids) == {
        *("results", "gates", "importance", "calibration", "slices", "speed")
    }


def test_of_many_pairs_of_tasks_those_that_disagree_most_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More lines than some cannot be told apart; the page says that there are others."""
    drawn: list[Sequence[Panel]] = []

    def draw(panels: Sequence[Panel], *, alt: str) -> str:
        drawn.append(panels)
        return line_chart(panels, alt=alt)

    monkeypatch.setattr(task_sections, "_MOST_LINES", 1)
    monkeypatch.setattr(task_sections, "line_chart", draw)
    text, _ = page_of(write_run(tmp_path / "run"))
    assert "1 lowest of 2 pairs" in text
    [cosines] = [panel for [panel, *_] in drawn if panel.title.startswith("cosine")]
    assert [line.label for line in cosines.lines] == ["click, watch"]


def test_the_same_run_has_the_same_page(tmp_path: Path) -> None:
    """Byte for byte: nothing of the day or of chance is in it."""
    folder = write_run(tmp_path / "run")
    assert page_of(folder)[0] == page_of(folder)[0]


def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    """By the name of the folder, or of the file that is broken."""
    with pytest.raises(InputError, match=rf"^{tmp_path}: no run: .*; give the folder [^\n]*$"):
        read_run(locate(str(tmp_path)))
    folder = write_run(tmp_path / "run")
    for name in ("metrics.jsonl", "summary.json"):
        kept = (folder / name).read_text()
        (folder / name).write_text("{")
        with pytest.raises(InputError, match=rf"{name}: expected JSON, found a broken text"):
            read_run(locate(str(folder)))
        (folder / name).write_text(kept)
    (folder / "recipe.yaml").write_text("data: 5\n")
    with pytest.raises(InputError, match=r"recipe\.yaml: expected a run's resolved recipe"):
        read_run(locate(str(folder)))
