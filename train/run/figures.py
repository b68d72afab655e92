"""curves.png of one run, and what all figures are drawn with."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from train.files import write_atomic
from train.run.records import Row

# Okabe and Ito's palette: told apart by colour-blind readers, and by lightness in grey.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib's default settings, whatever backend and matplotlibrc the user has; for the length of a drawing."""
    # Jupyter sets MPLBACKEND for child processes as well; a backend that is not there fails the first import.
    given = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if given is not None:
            os.environ["MPLBACKEND"] = given
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def plain(text: str) -> str:
    """Any text as matplotlib shows it letter by letter: no formulas, and escapes for what is not Unicode."""
    return text.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")


def new_figure(columns: int, title: str):
    """A figure with a row of axes, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(plain(title))
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def save_figure(figure, path: Path, *, dpi: int = 150) -> None:
    """Writes the figure atomically, as .png or .svg, without anything that changes from one drawing to the next."""
    import io

    from matplotlib import rc_context

    kind, data = path.suffix[1:], io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    with rc_context({"svg.hashsalt": "lookahead_jax"}):
        figure.savefig(data, format=kind, dpi=dpi, metadata=metadata)
    write_atomic(path, data.getvalue())


@own_style()
def draw_curves(rows: list[Row], title: str, path: Path) -> None:
    """Draws loss (or perplexity) and accuracy of a run over its epochs: training, live weights, slow weights."""
    from matplotlib.ticker import MaxNLocator

    language_model = "train_perplexity" in rows[0]
    figure, axes = new_figure(2, title)
    quantities = [("perplexity" if language_model else "loss"), "accuracy"]
    lines = (("train", "training", BLUE, "-"), ("test", "test, live weights", ORANGE, "-"))
    lines += (("slow_test", "test, slow weights", GREEN, "--"),)
    lines += (("ema_test", "test, moving average", PURPLE, ":"),)
    for axis, quantity in zip(axes, quantities, strict=True):
        for prefix, label, colour, style in lines:
            points = [(row["epoch"], row.get(f"{prefix}_{quantity}")) for row in rows]
            points = [(epoch, value) for epoch, value in points if value is not None]
            if points:
                axis.plot(*zip(*points, strict=True), style, color=colour, label=label, linewidth=1.5)
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axis.set(xlabel="epoch", ylabel=quantity)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    save_figure(figure, path)
