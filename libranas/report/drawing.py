"""Draw a figure as SVG, in the colours of the page, with points that say their values."""

import html
import io
import re
import zlib
from collections.abc import Callable, Sequence

import jinja2

#: Readable with the common colour deficiencies (Okabe and Ito).
BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#7a8188"
AXIS, TEXT, GRID = "#9aa1a8", "#3b4248", "#e4e7ea"
#: Colour to the variable of page.css that holds it, and what takes its place on a dark page.
VARIABLES = {
    **{BLUE: "blue", ORANGE: "orange", GREEN: "green", PURPLE: "purple", RED: "red", GREY: "grey"},
    **{AXIS: "axis", TEXT: "text", GRID: "grid"},
}
#: So many points that say nothing become a picture: as shapes they would make the page large.
SHAPES = 1000


def speaking(text: str, row: str = "") -> str:
    """Return what a shape has as its URL to become a point of the page; see :func:`points`."""
    return f"point:{row}\n{text}"


def points(axes, x: Sequence, y: Sequence, texts: Sequence[str | None], rows: Sequence[str], **look):
    """Scatter points which show a text, and lead to a row of the page; returns the points of the former.

    Parameters
    ----------
    texts : what each point says, a value a line; None or NaN: it says nothing and leads nowhere
    rows : id of the element of the page that each point leads to; "": none
    look : for ``axes.scatter``; ``c`` may be a value a point, all others hold for all
    """
    urls = [speaking(text, row) if isinstance(text, str) else None for text, row in zip(texts, rows, strict=True)]
    x, y, colours, look = list(x), list(y), look.pop("c", None), {"zorder": 3, **look}
    drawn = None
    for speaks in (False, True):
        own = [i for i, url in enumerate(urls) if bool(url) == speaks]
        part = {"c": [list(colours)[i] for i in own]} if colours is not None else {}
        if own:
            drawn = axes.scatter(
                [x[i] for i in own],
                [y[i] for i in own],
                urls=[urls[i] for i in own],
                rasterized=not speaks and len(own) > SHAPES,
                **look | part,
            )
            look.pop("label", None)  # one entry in the legend
    return drawn


def legend(axes, columns: int = 4) -> None:
    """Put the legend above the axes, where it hides no point."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, handletextpad=0.4)


def figure(label: str, draw: Callable, width: float, height: float) -> str:
    """Run ``draw(axes)`` and return the picture, called `label`, as an SVG element (sizes in inches)."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    style = {
        "svg.fonttype": "none",  # text stays text: searchable, small, in the page's font
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": AXIS,
        "axes.labelcolor": TEXT,
        "text.color": TEXT,
        "xtick.color": TEXT,
        "ytick.color": TEXT,
        "grid.color": GRID,
        "legend.frameon": False,
        "svg.hashsalt": "libranas",  # equal inputs, equal file
    }
    with plt.rc_context(style):
        page, axes = plt.subplots(figsize=(width, height), layout="constrained")
        draw(axes)
        buffer = io.StringIO()
        page.savefig(buffer, format="svg", transparent=True, metadata={"Date": None}, dpi=90)
        plt.close(page)
    svg = buffer.getvalue()
    return jinja2.utils.markupsafe.Markup(_of_the_page(svg[svg.index("<svg") :], label))


def _of_the_page(svg: str, label: str) -> str:
    """Give a picture the page's size, ids of its own, the page's colours and points that speak."""
    name = f'role="group" aria-label="{html.escape(label)}"'
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', name, svg, count=1)
    prefix = f"f{zlib.crc32(svg.encode()):x}-"  # equal in every process, unlike hash()
    svg = re.sub(r'id="([^"]+)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", svg)
    svg = re.sub('#[0-9a-f]{6}(?=[;"])', lambda found: _variable(found[0]), svg)
    return re.sub(r'<a xlink:href="point:([^"]*)"[^>]*>', _point, svg)


def _variable(colour: str) -> str:
    # A picture outside of the page has no variables, but these colours.
    return f"var(--{VARIABLES[colour]}, {colour})" if colour in VARIABLES else colour


def _point(found: re.Match) -> str:
    row, _, text = found[1].partition("\n")
    leads = f' href="#{row}"' if row else ""
    return f'<a class="point"{leads}><title>{text}</title>'
