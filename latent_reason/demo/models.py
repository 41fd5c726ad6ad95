"""A checkpoint of the demo: answers to it as views, piece by piece."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from threading import Lock

from ..asking.ask import AskOptions, DrawnSketch, stream_answer
from ..asking.examples import Example
from ..checkpoint import load
from ..model.reasoner import LatentReasoner
from ..trace import Trace
from ..visualization.answer_view import AnswerView, SketchView, draw_latents, view_answer
from ..visualization.sketch_decoder import SketchDecoder
from ..visualization.storyboard import DecodedTrace


class DemoModel:
    """A loaded checkpoint that answers one question at a time.

    Attributes:
        path: the folder it was loaded from.
        name: what the page calls it.
    """

    def __init__(self, path: str | Path, reasoner: LatentReasoner, decoder: SketchDecoder | None, name: str = ""):
        self.path, self.reasoner, self.decoder = Path(path), reasoner, decoder
        self.name = name or self.path.resolve().name
        self._lock = Lock()
        self._running: Generator[AnswerView] | None = None

    @classmethod
    def load(cls, path: str | Path, device: str | None = None, name: str = "") -> DemoModel:
        return cls(path, *load(path, device=device), name=name)

    @property
    def has_steps(self) -> bool:
        """Whether the head draws a latent in steps of denoising."""
        return bool(getattr(self.reasoner.head, "steps", 0))

    def stream(self, trace: Trace, options: AskOptions, example: Example | None = None) -> Iterator[AnswerView]:
        """The answer so far, after each piece of it, and at the end the whole, judged where ``example`` is known.

        The number of steps is set on the head while an answer runs. So an earlier answer that was left in the middle ends
        before this one begins.
        """
        with self._lock:
            if self._running is not None:
                self._running.close()
            running = self._running = self._views(trace, options, example)
        try:
            while True:
                with self._lock:  # an answer that was stopped may still be in a step
                    view = next(running, None)
                if view is None:
                    return
                yield view
        finally:
            with self._lock:
                running.close()

    def _views(self, trace: Trace, options: AskOptions, example: Example | None) -> Generator[AnswerView]:
        steps: list[str | SketchView] = []
        drawn: list[DrawnSketch] = []
        with closing(stream_answer(self.reasoner, trace, options)) as pieces:
            for piece in pieces:
                if isinstance(piece, DecodedTrace):
                    make_view = view_answer if example is None else example.view
                    yield make_view(self.reasoner, self.decoder, piece)
                    return
                if isinstance(piece, DrawnSketch):
                    drawn.append(piece)
                    steps.append(self._view_sketch(drawn, trace))
                elif steps and isinstance(steps[-1], str):
                    steps[-1] += piece
                else:
                    steps.append(piece)
                yield AnswerView("", (), tuple(steps))

    def _view_sketch(self, drawn: list[DrawnSketch], trace: Trace) -> SketchView:
        """The last of the sketches drawn so far."""
        sketch, images = drawn[-1], trace.images()
        is_rendered = self.decoder is not None and self.reasoner.is_renderable and bool(images)
        if is_rendered:
            size = self.reasoner.backbone.token_grid(images[-1])
            picture = self.decoder.draw(self.reasoner.unscale_latents(sketch.latents), sketch.grid, size)
        else:
            picture = draw_latents([one.latents for one in drawn], [one.grid for one in drawn])[-1]
        return SketchView(len(drawn), len(sketch.latents), picture, is_rendered)
