"""For `experiment_analysis.ipynb`: the trade-off to point at and click."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bokeh.embed import file_html
from bokeh.layouts import row
from bokeh.models import ColumnDataSource, CustomJS
from bokeh.models.annotations import Span
from bokeh.models.widgets import Div
from bokeh.plotting import figure
from bokeh.resources import Resources
from IPython.display import HTML

from cplxnet.auto.manifest.grid import C
from cplxnet.auto.models import heard, load_model
from cplxnet.auto.report import style, tables, trade_off

from .example import example

EXAMPLES = {"musicnet": example}  # by task

SHOWN = {
    "run": "@run",
    "method": "@method",
    "setting": "@setting",
    "seed": "@seed",
    "AP, fine-tuned": "@after{0.0000}",
    "AP before": "@before{0.0000}",
    "compression": "@compression{0.0} times",
}
UNLOADED = """<script>
  if (!window.Bokeh) document.body.textContent =
    "Bokeh could not be loaded from the net: run %env BOKEH_RESOURCES=inline, and this cell again."
</script>"""
# all that is left of it where a notebook is not trusted: in a new clone, on a web page
UNSEEN = "<p>No figure above? It is drawn when this cell is run.</p>"
CLICKED = "div.text = truth + (cards[source.selected.indices[0]] ?? '')"


def scorers(folder: str) -> list[str]:
    """The names of the scorers of a folder's manifests."""
    manifests = tables.readable(folder).values()
    return sorted({name for manifest in manifests for name in manifest.scorers})


def trade_off_page(
    folder: str | Path, *, scorer: str = "test", data: str | Path = "data", **options: Any
) -> HTML:
    """The trade-off as a page in a notebook: pointing at a run names it, a click plays it.

    A run is played where its last snapshot and the scorer's file are there, by its task's entry
    in `EXAMPLES`; a task without one has no players.

    Args:
        folder: of manifests and runs.
        scorer: whose scores.
        data: the folder of the data files.
        options: of the example: which one, and which part.

    Raises:
        Lacking: no run has a score by `scorer`.
    """
    runs = trade_off.rows(tables.collect(folder), scorer=scorer).dropna(subset=["compression"])
    cards: dict[str, str] = {}
    none = "No run here has both its last snapshot and its data: run one to hear it."
    try:
        cards = _cards(folder, scorer, Path(data), options)
    except ValueError as error:  # no such example, or a damaged snapshot: the figure is there
        none = html.escape(str(error))
    truth = cards.pop("", "")
    hint = f"Click a point to hear what its network writes down.{truth}" if cards else none
    text = Div(text=hint, width=380)

    drawn = figure(
        width=560,
        height=420,
        x_axis_type="log",
        x_axis_label=style.TIMES,
        y_axis_label=f"{style.PRECISION}, {scorer}",
        tools="pan,box_zoom,wheel_zoom,reset,save,hover,tap",
        tooltips=list(SHOWN.items()),
    )
    for _, scores in tables.dense_scores(runs):
        drawn.add_layout(Span(location=scores.mean(), dimension="width", line_color="gray"))

    looks = style.looks(runs)
    for method, group in tables.by_method(runs.drop(columns=C)):
        colour = f"#{looks[method][0].removeprefix('#')}"
        source = ColumnDataSource(group.to_dict("list"))
        drawn.segment("compression", "before", "compression", "after", source=source, color=colour)
        point: dict[str, Any] = {"x": "compression", "source": source, "size": 9, "color": colour}
        drawn.scatter(y="before", fill_color="white", **point)
        drawn.scatter(y="after", legend_label=method, **point)

        own = [cards.get(run, "Its snapshot is not here.") for run in group["run"]]
        shown = {"source": source, "div": text, "truth": truth, "cards": own}
        source.selected.js_on_change("indices", CustomJS(args=shown, code=CLICKED))

    drawn.legend.title = "filled: fine-tuned, hollow: before"
    drawn.add_layout(drawn.legend[0], "above")  # inside it covers runs
    page = file_html(row(drawn, text), Resources(), title=f"{folder}: the trade-off") + UNLOADED
    frame = f'<iframe srcdoc="{html.escape(page)}" width="100%" height="520"></iframe>'
    return HTML(f"<div>{frame}{UNSEEN}</div>")


def _cards(
    folder: str | Path, scorer: str, data: Path, options: Mapping[str, Any]
) -> dict[str, str]:
    """What the networks make of an example by the names of their runs, and the truth by ""."""
    cards = {}
    for run in tables.every_run([folder]):
        example_of = EXAMPLES.get(run.manifest.task)
        order = run.manifest.stage_order
        file = data / run.scored_on(scorer)[0] if scorer in run.manifest.scorers else data
        snapshot = run.files.snapshot(len(order) - 1, order[-1])
        if example_of and snapshot.is_file() and file.is_file():
            model, manifest = load_model(run.files.path)
            cards[run.name] = example_of(model, file, **heard(manifest), **options)
            if "" not in cards:
                cards[""] = example_of(None, file, **options)
    return cards
