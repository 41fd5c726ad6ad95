"""Best of n: which rollout is kept, what is taught of it, and that it can be trained on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_runs import recipe, short, tiny_checkpoint

from eval.turns.baseline import Chat, Problem
from eval.turns.episodes import Episode
from latent_reason import checkpoint
from latent_reason.data import native
from latent_reason.decoding import engine
from latent_reason.decoding.items import Result
from latent_reason.tasks import make
from train import rejection_sampling, sft
from train.trainer import make_run_folder


@pytest.fixture
def model():
    reasoner, decoder = checkpoint.load(tiny_checkpoint())
    return reasoner, decoder, make("frozenlake_plan", level=3)


def said(model, *texts, item=None) -> list[Result]:
    """Rollouts of an item, the first, that say these texts; ``<>`` opens a sketch."""
    reasoner, _, task = model
    v, item = reasoner.vocabulary, item or task[0]
    queue = []
    for text in texts:
        first, *rest = text.split("<>")
        queue.append([*v.encode_text(first), *[t for part in rest for t in (v.open, *v.encode_text(part))], v.end])
    prompt = reasoner.processor([task.trace(item, "mixed")] * len(texts), generate=True)
    out = engine.generate(reasoner, prompt, max_new_tokens=300, forced_tokens=queue)
    return [Result(item, out.text(r, v), task.score(out.text(r, v), item.meta), out, r) for r in range(len(texts))]


def test_the_right_rollout_with_true_sketches_is_kept_then_the_shortest(model):
    answer = f"\\boxed{{{model[2][0].answer}}}"
    wrong, long, short_one, drawn = said(model, "\\boxed{}", f"Go. Go. {answer}", f"Go.{answer}", f"Go.<> {answer}")
    assert rejection_sampling.best([wrong]) is None and rejection_sampling.best([wrong, long, short_one]) is short_one
    drawn.sketches = [{"equal": True}]
    assert rejection_sampling.best([long, short_one, drawn]) is drawn
    assert rejection_sampling.best([short_one, replace(drawn, sketches=[{"equal": False}])]) is short_one


def test_what_is_taught_is_the_rollout_with_sketches_as_its_words_have_them(model):
    """A model that says what the gold trace says is taught the gold trace."""
    reasoner, _, task = model
    gold = task.trace(task[0], "mixed")
    text = "".join(getattr(part, "text", "<>") for part in gold.messages[-1].content)
    found = rejection_sampling.taught(task, said(model, text)[0], "mixed", reasoner.vocabulary)
    assert found.assistant_text() == gold.assistant_text() and found.messages[0] == gold.messages[0]
    for one, other in zip(found.sketches(), gold.sketches(), strict=True):
        assert one.image.tobytes() == other.image.tobytes()


def test_what_was_kept_is_read_and_trained_on(model, tmp_path, monkeypatch, capsys):
    short(monkeypatch)
    monkeypatch.setattr(
        rejection_sampling,
        "decode",
        lambda *args, **options: [said(model, f"Go.<> \\boxed{{{item.answer}}}", item=item)[0] for item in args[3]],
    )
    out = tmp_path / "kept"
    rejection_sampling.main(
        [str(tiny_checkpoint()), "--out", str(out), "--levels", "3", "--items", "8", "--num-generations", "2"]
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert "8 were solved at least once in 2, 8 every time (mean 1.00). 8 rollouts kept" in printed
    assert len(list(native.read(out))) == 8
    made = recipe(
        tmp_path / "run", init_from=str(tiny_checkpoint()), data__folder=str(out), data__val_items=0, optim__max_steps=2
    )
    sft.train(made, make_run_folder(made))
    with pytest.raises(SystemExit, match=r"exists and is not empty. Name a new one"):
        rejection_sampling.main([str(tiny_checkpoint()), "--out", str(out)])


def test_chats_of_a_baseline_are_kept_whole_or_as_answers(model, tmp_path, monkeypatch, capsys):
    """Of two right chats of an item the one that called a tool; with answers only, the question and its answer."""

    def answer(model, decoder, baseline, problems, limits):
        task = make("frozenlake_plan", level=3)
        for n, problem in enumerate(problems):
            item = task[n]
            calls = ["point(32, 32)"] * (limits.seed % 2)
            chat = baseline.begin(problem)
            for call in calls:
                chat = chat.with_reply(call).with_user("", [problem.pictures[0]])
            text = f"\\boxed{{{item.answer}}}"
            yield n, Episode(problem, chat.with_reply(text), text, tokens=9, turns=1 + len(calls), calls=len(calls))

    monkeypatch.setattr(rejection_sampling, "run_episodes", answer)
    common = [str(tiny_checkpoint()), "--levels", "3", "--items", "3", "--num-generations", "2"]
    whole, answers = tmp_path / "whole", tmp_path / "answers"
    rejection_sampling.main([*common, "--baseline", "draw", "--out", str(whole)])
    rejection_sampling.main([*common, "--baseline", "draw", "--answers-only", "--out", str(answers)])
    for folder, instructed in ((whole, True), (answers, False)):
        records = list(native.read(folder))
        assert len(records) == 3 and all(len(record.messages) == (4 if instructed else 2) for record in records)
        assert ("box(x0" in records[0].messages[0].content[-1].text) == instructed
        assert records[0].assistant_text() == f"\\boxed{{{make('frozenlake_plan', level=3)[0].answer}}}"
    for given, error in (
        (["--answers-only"], "Name one with --baseline"),
        (["--baseline", "oracle"], "baseline 'oracle' calls no tools"),
        (["--baseline", "whiteboard"], "Allow it with --run-code"),
    ):
        with pytest.raises(SystemExit, match=error):
            rejection_sampling.main([*common, *given, "--out", str(tmp_path / "x")])


def test_chats_that_mended_a_call_come_first():
    problem = Problem("p", (), "q")
    plain = Episode(problem, Chat().with_user("q").with_reply("a"), "a", tokens=3, turns=1)
    called = Episode(problem, plain.chat, "a", tokens=9, turns=2, calls=1)
    chat = Chat().with_user("q").with_reply("crop(1)").with_user("Error: crop needs 4 numbers.").with_reply("a")
    mended = Episode(problem, chat, "a", tokens=20, turns=3, calls=2)
    order = sorted([plain, called, mended, replace(called, tokens=8)], key=rejection_sampling.worth_of_chat)
    assert [one.tokens for one in order] == [3, 9, 8, 20]


def test_nothing_right_is_said(monkeypatch, tmp_path):
    short(monkeypatch)
    with pytest.raises(SystemExit, match=r"of 2 items none was solved in 1 rollouts each. Take easier ones"):
        rejection_sampling.main(
            [
                str(tiny_checkpoint()),
                "--out",
                str(tmp_path / "x"),
                "--levels",
                "3",
                "--items",
                "2",
                "--num-generations",
                "1",
            ]
        )
    assert not (tmp_path / "x").exists()
