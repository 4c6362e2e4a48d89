"""One HTML file that needs no other."""

from __future__ import annotations

import html

from trainer.report.run_data import RunData
from trainer.report.sections import (
    learning_section,
    recipe_section,
    results_section,
    speed_section,
    summary_section,
)
from trainer.report.task_sections import (
    calibration_section,
    gates_section,
    gradients_section,
    importance_section,
    slices_section,
    weights_section,
)

SECTIONS = {
    "summary": ("Summary", summary_section),
    "results": ("Results", results_section),
    "learning": ("Learning curves", learning_section),
    "gradients": ("Gradients of the tasks", gradients_section),
    "weights": ("Loss weights", weights_section),
    "gates": ("Gates", gates_section),
    "calibration": ("Calibration", calibration_section),
    "slices": ("Known and new ids", slices_section),
    "importance": ("Importance of features", importance_section),
    "speed": ("Speed", speed_section),
    "recipe": ("Recipe", recipe_section),
}

_CSS = """
:root { color-scheme: light dark; --line: #8884; --quiet: #667; --paper: #fff; --ink: #1b1f24;
  --soft: #8881; --link: #1466b8; }
@media (prefers-color-scheme: dark) { :root { --quiet: #99a; --paper: #14171a; --ink: #dde2e7;
  --link: #6db3f2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h1 + p { color: var(--quiet); margin: 0 0 1rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92em; }
caption { text-align: left; color: var(--quiet); padding-bottom: .3rem; }
th, td { padding: .28rem .6rem; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
thead th { color: var(--quiet); font-weight: 600; vertical-align: bottom;
  white-space: normal; }
tbody th { font-weight: 500; } tbody tr:hover { background: var(--soft); }
th.number, td.number { text-align: right; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; display: block; }
svg { stroke-linejoin: round; stroke-linecap: butt; }
pre { background: var(--soft); padding: 1rem; overflow-x: auto; font-size: .85em; }
"""


def report_page(run: RunData) -> str:
    """The HTML of a run's report; sections without data are left out."""
    found = {}
    for key, (title, section) in SECTIONS.items():
        if (content := section(run)) is not None:
            found[key] = (title, content)
    name = html.escape(str(run.recipe["run"].get("name") or "run"))
    contents = "".join(
        f'<li><a href="#{key}">{html.escape(title)}</a></li>' for key, (title, _) in found.items()
    )
    body = "".join(
        f'<section id="{key}"><h2>{html.escape(title)}</h2>{content}</section>\n'
        for key, (title, content) in found.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>Polytower: {name}</title>\n<style>{_CSS}</style></head>\n"
        f"<body><header><h1>{name}</h1><p>{html.escape(run.uri)}</p></header>\n"
        f'<nav aria-label="contents"><ul>{contents}</ul></nav>\n<main>{body}</main>'
        "</body>\n</html>\n"
    )
