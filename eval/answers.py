"""Accuracy of answers to questions about images, on the test records of a folder, for models with and without latents.

    python -m eval.answers CHECKPOINT FOLDER --n 1000 --out FILE.json

A record with an ``answer`` is graded by its ``checker``. Without one, a reply is right if it equals the record's own last
turn up to case and a final full stop. The report also has a baseline that does not use the images: the most frequent
training answer to the same question text, or the most frequent of all answers if the question does not occur in training.
FILE.items.jsonl beside FILE.json has one line an item, which eval.compare reads.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output
from latent_reason.errors import at_least, cli_errors


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.answers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("folder", help="native records, such as those of: python -m latent_reason easy-vqa FOLDER")
    parser.add_argument("--n", type=at_least(1), default=1000, help="test questions, from the first on")
    parser.add_argument(
        "--max-new-tokens", type=at_least(1), default=640, metavar="N", help="longest reply (default: 640)"
    )
    add_output(parser, "the JSON file of the results; FILE.items.jsonl is written beside it")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from latent_reason import checkpoint
from latent_reason.data import native
from latent_reason.decoding.engine import generate
from latent_reason.files import atomic_write_json
from latent_reason.model.batch import TEXT
from latent_reason.outputs import check_output
from latent_reason.trace import Text, Trace

from .item_lines import items_path, write_items
from .records import GoldAnswer, is_right
from .statistics import wilson

console = Console(soft_wrap=True)


def normalize_answer(text: str) -> str:
    return text.strip().rstrip(".").strip().lower()


def question_answer_pairs(trace: Trace) -> list[tuple[str, str]]:
    """(question, answer) of every turn of a chat. The last question has the answer of the record, if there is one."""
    texts = ["".join(p.text for p in m.content if isinstance(p, Text)) for m in trace.messages if m.role != "system"]
    if trace.answer is not None:
        texts = [*texts[: (len(texts) - 1) // 2 * 2 + 1], trace.answer]
    return list(zip(texts[::2], map(normalize_answer, texts[1::2]), strict=False))


def is_answer_right(trace: Trace, reply: str) -> bool:
    """Whether a reply is the answer of a record: by its checker if it has an answer, else as text."""
    if trace.answer is not None:
        return is_right(reply, GoldAnswer(trace.answer, trace.meta), trace.checker)
    return normalize_answer(reply) == question_answer_pairs(trace)[-1][1]


class QuestionOnlyBaseline:
    """Answers from the text of the question alone."""

    def __init__(self, traces: Iterable[Trace]):
        self.by_question, self.all = defaultdict(Counter), Counter()
        for question, answer in (turn for trace in traces for turn in question_answer_pairs(trace)):
            self.by_question[question][answer] += 1
            self.all[answer] += 1

    def __call__(self, question: str) -> str:
        return (self.by_question.get(question) or self.all).most_common(1)[0][0]


class Reply(NamedTuple):
    """A generated answer, and how many latents and text tokens it took."""

    text: str
    latents: int = 0
    tokens: int = 0


def generate_answers(reasoner, traces: Sequence[Trace], batch_size: int = 64, max_new_tokens: int = 640) -> list[Reply]:
    """The answers that a reasoner generates to the last question of each trace."""
    out, processor = [], reasoner.processor
    for start in track(range(0, len(traces), batch_size), description="questions", console=console, transient=True):
        batch = processor(traces[start : start + batch_size], generate=True).to(reasoner.device)
        rollout = generate(reasoner, batch, max_new_tokens=max_new_tokens, row_ids=range(start, start + len(batch.ids)))
        for row in range(len(batch.ids)):
            latents = sum(span.length for span in rollout.spans_of(row))
            tokens = int((rollout.token_type[row] == TEXT).sum())
            out.append(Reply(rollout.text(row, reasoner.vocabulary), latents, tokens))
    return out


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        evaluate_to_file(parse_arguments(argv))


def evaluate_to_file(args: argparse.Namespace) -> None:
    out = check_output(args.out, args.overwrite)
    items_file = check_output(items_path(out), args.overwrite)
    reasoner, _ = checkpoint.load(args.checkpoint)
    traces = list(islice((t for t in native.read(args.folder) if t.split == "test"), args.n))
    if not traces:
        raise ValueError(f"'{args.folder}' has no records with split 'test'. Add some, or use another folder.")
    baseline = QuestionOnlyBaseline(t for t in native.read(args.folder) if t.split == "train")
    if not baseline.all:
        raise ValueError(
            f"'{args.folder}' has no records with split 'train'. The question-only baseline needs their answers."
        )
    predicted = generate_answers(reasoner, traces, max_new_tokens=args.max_new_tokens)
    guesses = [baseline(question_answer_pairs(trace)[-1][0]) for trace in traces]
    replies = [guess if t.answer is None else f"\\boxed{{{guess}}}" for t, guess in zip(traces, guesses, strict=True)]
    right = {
        "seeing": [is_answer_right(trace, reply.text) for trace, reply in zip(traces, predicted, strict=True)],
        "unseeing": [is_answer_right(trace, reply) for trace, reply in zip(traces, replies, strict=True)],
    }
    accuracy = {name: [round(x, 4) for x in wilson(sum(values), len(values))] for name, values in right.items()}
    task = Path(args.folder).name
    about = {"schema": 1, "checkpoint": Path(args.checkpoint).as_posix(), "folder": args.folder, "n": len(traces)}
    about |= {"method": reasoner.method.name or "", "decoding": "plain", "accuracy": accuracy}
    rows = [
        {"task": task, "level": "all", "split": "test", "n": len(traces), "metric": metric}
        | dict(zip(("value", "low", "high"), accuracy[name], strict=True))
        for metric, name in (("accuracy", "seeing"), ("constant", "unseeing"))
    ]
    lines = (
        {"id": trace.id, "task": task, "split": "test", "scores": {"accuracy": float(is_right)}}
        | {"latents": reply.latents, "tokens": reply.tokens, "reply": reply.text}
        for trace, is_right, reply in zip(traces, right["seeing"], predicted, strict=True)
    )
    write_items(items_file, lines)
    atomic_write_json(out, about | {"results": rows})
    (share, low, high), share_without_images = accuracy["seeing"], accuracy["unseeing"][0]
    console.print(
        f"{len(traces)} questions: accuracy {share:.3f} ({low:.3f} to {high:.3f}); question-only baseline "
        f"{share_without_images:.3f}. Results written to {args.out}, single items to {items_file}"
    )


if __name__ == "__main__":
    main()
