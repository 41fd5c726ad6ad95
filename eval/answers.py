"""Short answers to questions about pictures: accuracy on the test records of a folder.

    python -m eval.answers CHECKPOINT FOLDER --n 1000 --out FILE.json

An answer is right where it is the record's own, but for case and a full stop. Beside it stands the best reader that
does not look: the most frequent training answer to a question's words (to words never asked in training, to all).
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice

from rich.console import Console
from rich.progress import track

from latent_reason import checkpoint
from latent_reason.data import native
from latent_reason.decoding.engine import generate
from latent_reason.errors import at_least, cli_errors
from latent_reason.files import atomic_write_json
from latent_reason.trace import Text, Trace

from .statistics import wilson

console = Console(soft_wrap=True)


def plain(text: str) -> str:
    return text.strip().rstrip(".").strip().lower()


def turns(trace: Trace) -> Iterable[tuple[str, str]]:
    """(question, answer) of every turn of a chat."""
    said = ["".join(p.text for p in m.content if isinstance(p, Text)) for m in trace.messages if m.role != "system"]
    return zip(said[::2], map(plain, said[1::2]), strict=False)


class Unseeing:
    """Answers by the words of a question alone."""

    def __init__(self, traces: Iterable[Trace]):
        self.by_question, self.all = defaultdict(Counter), Counter()
        for question, answer in (turn for trace in traces for turn in turns(trace)):
            self.by_question[question][answer] += 1
            self.all[answer] += 1

    def __call__(self, question: str) -> str:
        return (self.by_question.get(question) or self.all).most_common(1)[0][0]


def answers(reasoner, traces: Sequence[Trace], batch_size: int = 64, max_new_tokens: int = 16) -> list[str]:
    """What a reasoner answers to the last question of each trace."""
    out, processor = [], reasoner.processor
    for start in track(range(0, len(traces), batch_size), description="questions", console=console, transient=True):
        batch = processor(traces[start : start + batch_size], generate=True).to(reasoner.device)
        rollout = generate(reasoner, batch, max_new_tokens=max_new_tokens, row_ids=range(start, start + len(batch.ids)))
        out += [rollout.text(row, reasoner.vocabulary) for row in range(len(batch.ids))]
    return out


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.answers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("folder", help="native records, such as those of: python -m latent_reason easy-vqa FOLDER")
    parser.add_argument("--n", type=at_least(1), default=1000, help="test questions, from the first on")
    parser.add_argument("--out", required=True)
    with cli_errors():
        to_file(parser.parse_args(argv))


def to_file(given: argparse.Namespace) -> None:
    reasoner, _ = checkpoint.load(given.checkpoint)
    asked = list(islice((t for t in native.read(given.folder) if t.split == "test"), given.n))
    if not asked:
        raise ValueError(f"'{given.folder}' has no records whose split is test.")
    unseeing = Unseeing(t for t in native.read(given.folder) if t.split == "train")
    if not unseeing.all:
        raise ValueError(f"'{given.folder}' has no records whose split is train, from which to know what is usual.")
    gold = [list(turns(t))[-1] for t in asked]
    said = answers(reasoner, asked)
    rows = {
        "seeing": [plain(a) == right for a, (_, right) in zip(said, gold, strict=True)],
        "unseeing": [unseeing(question) == right for question, right in gold],
    }
    found = {name: [round(x, 4) for x in wilson(sum(right), len(right))] for name, right in rows.items()}
    atomic_write_json(
        given.out,
        {"schema": 1, "checkpoint": given.checkpoint, "folder": given.folder, "n": len(asked), "accuracy": found},
    )
    (share, low, high), blind = found["seeing"], found["unseeing"][0]
    console.print(
        f"{len(asked)} questions: {share:.3f} right ({low:.3f} to {high:.3f}); without looking {blind:.3f}. "
        f"Written to {given.out}"
    )


if __name__ == "__main__":
    main()
