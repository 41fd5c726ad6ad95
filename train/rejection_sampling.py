"""Rejection sampling: the correct rollouts of a model become its next training data (best of n).

    python -m train.rejection_sampling CHECKPOINT --out data/kept [--task frozenlake_plan] [--levels 4,5] [--items 500]
    python -m train.sft --config RECIPE --init_from CHECKPOINT --data.folder data/kept
    python -m train.rejection_sampling CHECKPOINT --baseline draw --out data/kept       # chats with calls of tools

Of the correct rollouts of an item, the one is kept whose sketches most often show what its text says, and of those the
shortest (after ViLaSR's reflective rejection sampling, 2506.09965). Its sketches are rendered again from its own text:
a correct answer may come with a wrong sketch, which should not be trained on.

With ``--baseline``, the rollouts are chats of a baseline of explicit thinking that calls tools (eval/baselines). Of the right ones
of an item, one in which the model mended a failed call is kept, else one with a call, and of those the shortest. With ``--answers-only`` a record has the question, the whole picture and the answer, without the
turns that led to it: what a model found in enlarged regions, another one learns to answer at once (region-to-image
distillation, "Zooming without Zooming").
"""

from __future__ import annotations

import argparse

from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.values import Seed, Share, Temperature, argument


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m train.rejection_sampling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--out", required=True, help="a new folder of native records")
    parser.add_argument("--task", help="default: the task it was trained on")
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the levels it was trained on")
    parser.add_argument("--items", type=at_least(1), default=500)
    parser.add_argument("--num-generations", type=at_least(1), default=8, help="rollouts of each item")
    parser.add_argument("--temperature", type=argument(Temperature), default=1.0)
    parser.add_argument(
        "--max-pass-rate",
        type=argument(Share),
        default=1.0,
        help="leave out items that are solved more often than this share",
    )
    parser.add_argument("--seed", type=argument(Seed), default=0, help="of the items and of the rollouts")
    parser.add_argument(
        "--baseline", metavar="NAME", help="keep chats of this baseline, with options as in crop:turns=2"
    )
    parser.add_argument(
        "--answers-only", action="store_true", help="with --baseline: keep the question and the answer alone"
    )
    parser.add_argument("--run-code", action="store_true", help="run code that the model writes, in a sandbox")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from dataclasses import replace

from rich.console import Console

from eval.baselines import make_baseline
from eval.turns.baseline import Baseline
from eval.turns.episodes import Episode, EpisodeLimits, check_baseline, run_episodes
from eval.turns.tools import ERROR, ToolBaseline
from latent_reason import checkpoint, methods
from latent_reason.checkpoint.training_data import make_task
from latent_reason.data import native
from latent_reason.decoding.items import Result, decode, main_score
from latent_reason.decoding.rollout import Span
from latent_reason.outputs import check_output_folder
from latent_reason.tasks import Item, Task
from latent_reason.tasks.checkers import boxed
from latent_reason.tasks.item import merge_texts
from latent_reason.trace import Message, Sketch, Text, Trace
from latent_reason.visualization.storyboard import split_text

console = Console(soft_wrap=True)


def best(results: list[Result]) -> Result | None:
    """The rollout of an item to train on; None if no rollout is correct."""
    key = main_score(results)

    def worth(one: Result) -> tuple[float, int]:
        shown = sum(s["equal"] for s in one.sketches) / max(len(one.sketches), 1)
        return shown, -int((one.rollout.token_type[one.row] != 0).sum())

    return max(
        (r for r in results if r.scores[key] >= 1 and r.rollout.finish_reasons[r.row] == "end"), key=worth, default=None
    )


def taught(task: Task, result: Result, mode: str, vocabulary) -> Trace:
    """A rollout as a trace: its text, and in the place of each sketch the picture that the text leads to."""
    item, parts, said = result.item, [], split_text(result.rollout, result.row, vocabulary)
    spans = 0
    for piece in result.rollout.segments(result.row, vocabulary):
        if isinstance(piece, Span):
            state = task.state_told(item, said, spans)
            spans += 1
            parts.append(Sketch(task.render_state(item, state), state=state))
        else:
            parts.append(Text(piece))
    asked = task.trace(item, mode)
    answer = boxed(result.text)  # its own: there may be several right ones
    return replace(
        asked,
        messages=(*asked.messages[:-1], Message("assistant", merge_texts(parts))),
        answer=asked.answer if answer is None else answer,
    )


def kept(
    reasoner,
    decoder,
    task: Task,
    items: list[Item],
    mode: str,
    num_generations: int,
    temperature: float,
    max_pass_rate: float,
    seed: int = 0,
) -> tuple[list[Trace], list[float]]:
    """(traces to train on, pass rate of each item). An item with a pass rate above ``max_pass_rate`` is left out: there
    is little to learn from it."""
    rounds = [
        decode(
            reasoner,
            decoder,
            task,
            items,
            mode,
            temperature=temperature,
            seed=seed * num_generations + number,
            progress=f"round {number + 1} of {num_generations}",
        )
        for number in range(num_generations)
    ]
    traces, shares = [], []
    for tried in zip(*rounds, strict=True):
        key = main_score(list(tried))
        shares.append(sum(r.scores[key] >= 1 for r in tried) / num_generations)
        if shares[-1] <= max_pass_rate and (found := best(list(tried))) is not None:
            traces.append(taught(task, found, mode, reasoner.vocabulary))
    return traces, shares


def keep_chats(
    model,
    decoder,
    baseline: Baseline,
    task: Task,
    items: list[Item],
    num_generations: int,
    temperature: float,
    max_pass_rate: float,
    seed: int = 0,
    answers_only: bool = False,
) -> tuple[list[Trace], list[float]]:
    """As :func:`kept`, of chats of a baseline: the best right one of each item."""
    problems = [baseline.problem(task, item) for item in items]
    rounds = [
        dict(run_episodes(model, decoder, baseline, problems, EpisodeLimits(temperature=temperature, seed=number)))
        for number in range(seed * num_generations, (seed + 1) * num_generations)
    ]
    traces, shares = [], []
    for n, item in enumerate(items):
        tried = [episodes[n] for episodes in rounds]
        right = [one for one in tried if next(iter(task.score(one.text, item.meta).values())) >= 1]
        shares.append(len(right) / num_generations)
        ended = [one for one in right if one.ended == "answer"]
        if ended and shares[-1] <= max_pass_rate:
            traces.append(make_record(task, item, max(ended, key=worth_of_chat), answers_only))
    return traces, shares


def worth_of_chat(episode: Episode) -> tuple[bool, bool, int, int]:
    """Chats in which the model mended a failed call come first, then those that called a tool, then the shortest: what is
    to be learned is to call, and to look at what comes back."""
    return was_mended(episode), episode.calls > 0, -episode.turns, -episode.tokens


def was_mended(episode: Episode) -> bool:
    """Whether a call of the chat failed, and the model went on to its answer."""
    told = (part for m in episode.chat.messages if m.role == "user" for part in m.content if isinstance(part, Text))
    return any(ERROR in part.text for part in told)


def make_record(task: Task, item: Item, episode: Episode, answers_only: bool) -> Trace:
    """A chat as a trace to train on; with ``answers_only`` the question and the answer alone."""
    asked = task.trace(item, "direct")
    answer = asked.answer if (own := boxed(episode.text)) is None else own  # its own: there may be several right ones
    last = Message("assistant", (Text(f"\\boxed{{{answer}}}"),))
    messages = (*asked.messages[:-1], last) if answers_only else episode.chat.messages
    return replace(asked, messages=messages, answer=answer)


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        to_folder(parse_arguments(argv))


def to_folder(given: argparse.Namespace) -> None:
    if given.temperature <= 0:
        raise ValueError(f"--temperature {given.temperature}: more than 0, or all rollouts are the same.")
    if given.answers_only and not given.baseline:
        raise ValueError("--answers-only keeps the answers of a baseline. Name one with --baseline.")
    baseline = make_baseline(given.baseline) if given.baseline else None
    if baseline is not None and not given.answers_only and not isinstance(baseline, ToolBaseline):
        raise ValueError(
            f"baseline {baseline.name!r} calls no tools, so that its chats are nothing to learn calls from. Use --answers-only, "
            "or leave --baseline out."
        )
    check_output_folder(given.out)
    reasoner, decoder = checkpoint.load(given.checkpoint)
    task = make_task(
        reasoner.method.notes, given.checkpoint, given.task, levels=given.levels, split="train", seed=given.seed
    )
    items = [task[i] for i in range(given.items)]
    how = (given.num_generations, given.temperature, given.max_pass_rate, given.seed)
    if baseline is None:
        traces, shares = kept(reasoner, decoder, task, items, methods.load(reasoner.method.name).MODE, *how)
    else:
        check_baseline(baseline, reasoner, decoder, given.run_code)
        traces, shares = keep_chats(reasoner, decoder, baseline, task, items, *how, answers_only=given.answers_only)
    if not traces:
        raise ValueError(
            f"of {given.items} items none was solved in {given.num_generations} rollouts each. Take easier ones "
            "with --levels, or a larger --num-generations."
        )
    native.write(traces, given.out)
    console.print(
        f"Of {given.items} items, {sum(s > 0 for s in shares)} were solved at least once in {given.num_generations}, "
        f"{sum(s == 1 for s in shares)} every time (mean {sum(shares) / len(shares):.2f}).\n"
        f"{len(traces)} rollouts kept in {given.out}. Tune on them: python -m train.sft --config RECIPE "
        f"--init_from {given.checkpoint} --data.folder {given.out}"
    )


if __name__ == "__main__":
    main()
