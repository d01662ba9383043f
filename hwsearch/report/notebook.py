"""HTML representations of a run and of its front, for notebooks."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from hwsearch.architectures import one_line
from hwsearch.quantities import exact_quantities
from hwsearch.report.run_data import stated

if TYPE_CHECKING:
    from hwsearch.run.folder import RunFolder

_RIGHT = ' style="text-align:right"'
_LEFT = ' style="text-align:left"'


class Front(pd.DataFrame):  # type: ignore[misc]  # pandas comes without types
    """The members of a run, shown in notebooks with intervals; its parts are plain data frames."""

    def _repr_html_(self) -> str:
        return front_html(self)


def front_html(front: "pd.DataFrame") -> str:
    """Return an HTML table of the members: values with intervals, architectures."""
    columns = list(front.columns)
    measured = [name for name in columns if f"{name}_low" in columns]
    exact = [name for name in exact_quantities() if name in columns]
    choices = columns[columns.index("subnet") + 1 :]
    head = ["key", *measured, *exact, *(["on front"] if "probability" in columns else [])]
    rows = ["".join(f"<th{_LEFT}>{escape(name)}</th>" for name in [*head, "architecture"])]
    for row in front.to_dict("records"):
        cells = [f"<td{_LEFT}><code>{escape(str(row['key']))}</code></td>"]
        cells += [f"<td{_RIGHT}>{_number(row, name)}</td>" for name in measured]
        cells += [f"<td{_RIGHT}>{row[name]:.4g}</td>" for name in exact]
        if "probability" in columns:
            cells.append(f"<td{_RIGHT}>{row['probability']:.0%}</td>")
        active = {name: _option(row[name]) for name in choices if row[name] == row[name]}
        cells.append(f"<td{_LEFT}>{escape(one_line(active))}</td>")
        rows.append("".join(cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table>{body}</table>"


def run_html(run: "RunFolder") -> str:
    """Return an HTML summary of a run: its title, and its front or how to resume it."""
    head = f"<p><b>{escape(run.title)}</b><br><code>{escape(str(run.folder))}</code></p>"
    if not run.finished:
        return f"{head}<p>not finished: hwsearch resume {escape(str(run.folder))}</p>"
    members = run.members
    what = "front" if run.confirmed else "candidates, predicted numbers among them"
    report = "<p>run.plot() draws it; run.report() writes the page.</p>"
    return f"{head}<p>{what}: {len(members)} subnets</p>{front_html(members)}{report}"


def _number(row: Mapping[Any, Any], name: str) -> str:
    value, low, high = stated(row, name)
    mark = "~" if f"{name}_source" in row else ""
    if low is None or high is None:
        return f"{mark}{value:.4g}"
    return f"{mark}{value:.4g} <small>({low:.4g} to {high:.4g})</small>"


def _option(value: Any) -> Any:
    # Pandas turns 2 into 2.0 in columns with gaps.
    return int(value) if isinstance(value, float) and value.is_integer() else value
