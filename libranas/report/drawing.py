"""Draw a figure as SVG, in the colours of the report."""

import io
import re
import zlib
from collections.abc import Callable

import jinja2

#: Readable with the common colour deficiencies (Okabe and Ito).
BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#7a8188"


def figure(draw: Callable, width: float, height: float) -> str:
    """Run ``draw(axes)`` and return the picture as an SVG element (sizes in inches)."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    style = {
        "svg.fonttype": "none",  # text stays text: searchable, small, in the page's font
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#9aa1a8",
        "axes.labelcolor": "#3b4248",
        "xtick.color": "#3b4248",
        "ytick.color": "#3b4248",
        "grid.color": "#e4e7ea",
        "legend.frameon": False,
        "svg.hashsalt": "libranas",  # equal inputs, equal file
    }
    with plt.rc_context(style):
        page, axes = plt.subplots(figsize=(width, height), layout="constrained")
        draw(axes)
        buffer = io.StringIO()
        page.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        plt.close(page)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # The page sets the size; ids must not clash between the figures of a page.
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', svg, count=1)
    prefix = f"f{zlib.crc32(svg.encode()):x}-"  # equal in every process, unlike hash()
    svg = re.sub(r'id="([^"]+)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', svg)
    return jinja2.utils.markupsafe.Markup(re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", svg))
