"""A backend of matplotlib for the sandbox: Agg, whose ``plt.show`` gives the open figures back and closes them."""

from __future__ import annotations

import io

from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from . import snippet


def show_figures() -> None:
    """Give every open figure back, in the order of their numbers, and close it."""
    for manager in Gcf.get_all_fig_managers():
        Gcf.destroy(manager)
        file = io.BytesIO()
        manager.canvas.figure.savefig(file, format="png")
        snippet.show(Image.open(file))


class FigureManager(FigureManagerBase):
    @classmethod
    def pyplot_show(cls, *, block: bool | None = None) -> None:
        show_figures()


class FigureCanvas(FigureCanvasAgg):
    manager_class = FigureManager
