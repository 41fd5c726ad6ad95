"""The page: a form, examples, and a timeline of text and sketches for each checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from html import escape
from typing import get_args

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from ..asking.ask import Latents
from ..decoding.strategies import DECODINGS
from ..errors import is_sentence, sentence
from ..visualization.answer_figure import as_pdf
from ..visualization.answer_page import ANSWER_STYLE, write_page, write_steps
from ..visualization.answer_view import AnswerView
from .answering import LIMITS, Form, answer, read_number
from .boards import Board, Boards, question_of
from .models import DemoModel

FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # of the reader's machine
STYLE = (
    ANSWER_STYLE
    + """
.dark .answer{--quiet:#bbb;--right:#3fc79a;--wrong:#f0a060;--code:#333}
.waits{color:var(--body-text-color-subdued)}
.answer table,.answer tr{border:0}
#pictures .grid-wrap{padding-top:2.3rem}
#pictures img,#examples img{image-rendering:pixelated}
#examples .grid-container{grid-template-columns:repeat(6,minmax(0,1fr))}
@media (max-width:640px){#examples .grid-container{grid-template-columns:repeat(3,minmax(0,1fr))}}
#examples .grid-wrap{min-height:0;height:auto}
#examples .thumbnail-item,#examples img{min-height:0;min-width:0;height:auto}
"""
)
LATENTS = [
    ("on", "on"),
    ("off (no sketch)", "off"),
    ("zero", "zero"),
    ("noise", "noise"),
    ("those of another picture", "foreign"),
]
assert {value for _, value in LATENTS} == set(get_args(Latents))
OPTIONS = [field.name for field in fields(Form)][2:]  # an empty field of the page has its default
HOUR = 3600  # seconds after which files of readers are deleted


class Page:
    """Builds the page and handles its events."""

    def __init__(self, models: Sequence[DemoModel]):
        self.models, self.boards = tuple(models), Boards(models)

    def build(self) -> gr.Blocks:
        """The page as an application of gradio. Its events wait for each other: a model answers one question at a time."""
        names = " and ".join(model.name for model in self.models)
        with gr.Blocks(title=names, analytics_enabled=False, delete_cache=(HOUR, HOUR)) as blocks:
            gr.Markdown(f"# Ask {escape(names)}")
            with gr.Row():
                with gr.Column(scale=2, min_width=320):
                    board, label, gallery = self._add_examples()
                    pictures, text, ask, stop = self._add_question()
                    options = self._add_options()
                with gr.Column(scale=3, min_width=320):
                    timelines = self._add_timelines()
                    with gr.Row():
                        files = [
                            gr.DownloadButton(
                                f"Save {kind}", interactive=False, size="md", elem_id=f"save-{kind.lower()}"
                            )
                            for kind in ("HTML", "PDF")
                        ]
            opened = {"fn": self.open_board, "inputs": board, "outputs": [label, gallery], "show_progress": "hidden"}
            blocks.load(**opened)
            board.change(**opened)
            gallery.select(self.choose, board, [pictures, text], show_progress="hidden")
            asked = gr.on(
                [ask.click, text.submit],
                self.ask,
                [pictures, text, *options],
                [*timelines, *files],
                concurrency_limit=1,
                concurrency_id="models",
                show_progress="minimal",
                api_name="ask",
            )
            stop.click(None, cancels=asked, queue=False)
        return blocks.queue(max_size=32)

    def _add_examples(self) -> tuple[gr.Dropdown, gr.Markdown, gr.Gallery]:
        board = gr.Dropdown(self.boards.names, value=self.boards.names[0], label="Examples of", elem_id="board")
        label = gr.Markdown(elem_id="label")
        gallery = gr.Gallery(
            show_label=False,
            height="auto",
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            format="png",
            buttons=[],
            elem_id="examples",
        )
        return board, label, gallery

    def _add_question(self) -> tuple[gr.Gallery, gr.Textbox, gr.Button, gr.Button]:
        pictures = gr.Gallery(
            label="Pictures",
            columns=2,
            fit_columns=False,
            height=280,
            object_fit="contain",
            file_types=["image"],
            format="png",
            sources=["upload", "clipboard"],
            buttons=[],
            interactive=True,
            elem_id="pictures",
        )
        text = gr.Textbox(label="Question", lines=2, max_lines=6, placeholder="What to ask about the pictures")
        with gr.Row():
            ask = gr.Button("Ask", variant="primary", elem_id="ask")
            stop = gr.Button("Stop", elem_id="stop", min_width=80, scale=0)
        return pictures, text, ask, stop

    def _add_options(self) -> list[gr.components.Component]:
        """The options in the order of :class:`Form`."""
        latents = gr.Radio(LATENTS, value="on", label="Latents", elem_id="latents")
        foreign = gr.Image(
            label="The other picture", type="filepath", sources=["upload", "clipboard"], height=200, visible=False
        )
        latents.change(lambda kind: gr.Image(visible=kind == "foreign"), latents, foreign, show_progress="hidden")
        with gr.Accordion("More options", open=False):
            trained = {"placeholder": "as in training", "max_length": 4}  # a field for numbers would show 0 for nothing
            with gr.Row():
                k = gr.Textbox(label="Latents of a sketch", **trained)
                has_steps = any(model.has_steps for model in self.models)
                steps = gr.Textbox(label="Denoising steps", interactive=has_steps, **trained)
            with gr.Row():
                temperature = gr.Slider(0, 2, value=0, step=0.05, label="Temperature", info="0: greedy")
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
            with gr.Row():
                decoding = gr.Dropdown(list(DECODINGS), value="plain", label="Decoding")
                length = gr.Number(640, label="Longest answer", info="positions", precision=0, minimum=1, maximum=4096)
        return [latents, foreign, k, steps, temperature, seed, decoding, length]

    def _add_timelines(self) -> list[gr.HTML]:
        timelines = []
        with gr.Row():
            for number, model in enumerate(self.models, 1):
                with gr.Column(min_width=240):
                    gr.Markdown(f"### {'Answer' if len(self.models) == 1 else escape(model.name)}")
                    timelines.append(gr.HTML(WAITS, elem_id=f"answer-{number}"))
        return timelines

    def open_board(self, name: str):
        """The sentence and the pictures of a board."""
        board: Board = self.boards.open(name)
        return board.label, [example.trace.images()[0] for example in board.examples]

    def choose(self, name: str, chosen: gr.SelectData):
        """The pictures and the question of an example that was clicked."""
        example = self.boards.open(name).examples[chosen.index]
        return example.trace.images(), question_of(example)

    def ask(self, pictures: list[tuple[str, str | None]] | None, text: str, *options) -> Iterator[tuple]:
        """The timelines as they come, and at the end the files of the answers."""
        with shown_errors():
            given = {name: value for name, value in zip(OPTIONS, options, strict=True) if value not in (None, "")}
            for name, low in (("latents_per_span", 0), ("steps", 1)):
                if name in given:
                    given[name] = read_number(given[name], name, low)
            form = Form([path for path, _ in pictures or ()], text, **given)
            views: list[AnswerView | None] = []
            no_files = [gr.DownloadButton(value=None, interactive=False)] * 2
            for views in answer(self.models, self.boards, form):
                yield *map(write_timeline, views), *no_files
            whole = [view for view in views if view is not None]
            files = (("answer.html", write_page(whole, text[:80]).encode()), ("answer.pdf", as_pdf(whole)))
            saved = (save_bytes_to_cache(data, name, get_upload_folder()) for name, data in files)
            yield *map(write_timeline, views), *(gr.DownloadButton(value=path, interactive=True) for path in saved)


WAITS = "<p class=waits>The answer appears here.</p>"


def write_timeline(view: AnswerView | None) -> str:
    return WAITS if view is None else write_steps(view)


@contextmanager
def shown_errors() -> Iterator[None]:
    """Show an error that the reader can correct as one sentence on the page."""
    try:
        yield
    except Exception as error:
        if not is_sentence(error):
            raise
        raise gr.Error(sentence(error), print_exception=False) from None


#: how the page is mounted
LOOK = {"theme": gr.themes.Default(**FONTS), "css": STYLE, "max_file_size": LIMITS.bytes}
