"""Records out of the easy-VQA package, what answers to them are compared with, and what training does to plain text."""

from __future__ import annotations

import io
import json
import sysconfig
import zipfile
from dataclasses import replace

import pytest
import torch
from conftest import loss_of, objective_for
from PIL import Image as PILImage
from tiny_runs import recipe, tiny_checkpoint, untrained

from eval import answers, language, results
from latent_reason import checkpoint
from latent_reason.assets import sha256
from latent_reason.cli import main
from latent_reason.contracts.closeness import assert_close
from latent_reason.data import easy_vqa, native, texts
from latent_reason.model import backbones
from latent_reason.tasks import make
from latent_reason.trace import Image, Message, Text, Trace
from train.data import TraceData


def png(colour: str) -> bytes:
    file = io.BytesIO()
    PILImage.new("RGB", (64, 64), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in of the package: 51 training pictures and one of the test, out of order as in the real one."""
    asked = {
        "train": [["what color is it?", "red", 50]]
        + [[q, a, i] for i in range(51) for q, a in (("is it red?", "yes"), ("is it blue?", "no" if i % 2 else "yes"))],
        "test": [["what color is it?", "blue", 0], ["is it red?", "no", 0]],
    }
    cache = tmp_path / "cache"
    cache.mkdir()
    wheel = cache / easy_vqa.PACKAGE.wheel
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("easy_vqa/__init__.py", "raise SystemExit('imported')")
        archive.writestr("test/__init__.py", "")
        for part, rows in asked.items():
            archive.writestr(f"easy_vqa/data/{part}/questions.json", json.dumps(rows))
            for image in {row[2] for row in rows}:
                archive.writestr(f"easy_vqa/data/{part}/images/{image}.png", png("red" if part == "train" else "blue"))
    monkeypatch.setenv("LATENT_REASON_ASSETS", str(cache))
    monkeypatch.setattr(easy_vqa, "PACKAGE", replace(easy_vqa.PACKAGE, wheel_sha256=sha256(wheel)))
    return wheel


def test_pictures_become_conversations_and_test_questions_stand_alone(package, tmp_path, capsys):
    main(["easy-vqa", str(tmp_path / "records")])
    assert "--data.folder" in capsys.readouterr().out
    found = list(native.read(tmp_path / "records"))
    by_split = {split: [t for t in found if t.split == split] for split in ("train", "val", "test")}
    assert [len(by_split[s]) for s in ("train", "val", "test")] == [50, 1, 2]
    assert by_split["val"][0].id == "easy_vqa-train-49-0"
    last = by_split["train"][-1]
    assert [m.role for m in last.messages] == ["user", "assistant"] * 3
    assert len(last.images()) == 1 and isinstance(last.messages[0].content[0], Image)
    assert [len(t.messages) for t in by_split["test"]] == [2, 2]
    assert by_split["test"][0].images()[0].getpixel((0, 0)) == (0, 0, 255), "the picture of the test, not of training"


def test_another_package_is_refused(package, tmp_path):
    package.write_bytes(package.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"easy-vqa==1.0 is not the expected file: SHA-256"):
        easy_vqa.write(tmp_path / "records")
    assert not (tmp_path / "records").exists()


def replies(*texts: str) -> list[answers.Reply]:
    return [answers.Reply(text, 4, 2) for text in texts]


def chat(*asked: tuple[str, str]) -> Trace:
    messages = [
        Message(role, (Text(words),)) for pair in asked for role, words in zip(("user", "assistant"), pair, strict=True)
    ]
    return Trace("a", tuple(messages))


def test_who_does_not_look_knows_what_is_usual():
    unseeing = answers.QuestionOnlyBaseline(
        [chat(("red?", "no"), ("blue?", "Yes.")), chat(("red?", "no")), chat(("red?", "yes"))]
    )
    assert [unseeing(q) for q in ("red?", "blue?", "never asked")] == ["no", "yes", "no"]


def test_answers_are_counted_beside_those_of_who_does_not_look(package, tmp_path, monkeypatch):
    easy_vqa.write(tmp_path / "records")
    monkeypatch.setattr(answers, "generate_answers", lambda reasoner, traces, **how: replies("Blue.", "it is not"))
    answers.main([str(tiny_checkpoint()), str(tmp_path / "records"), "--out", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["n"] == 2
    assert [found["accuracy"][who][0] for who in ("seeing", "unseeing")] == [0.5, 0.0]


def test_records_that_end_with_their_question_are_graded_by_their_checker(tmp_path, monkeypatch):
    """Such as those of public sets for reinforcement learning."""

    def question(name, split, answer):
        asked = (Message("user", (Text(f"how many? {name}"),)),)
        return Trace(name, asked, split=split, mode="direct", answer=answer, checker="number")

    records = [question("a", "train", "3"), question("b", "test", "3"), question("c", "test", "4.0")]
    native.write(records, tmp_path / "records")
    said = replies("There are \\boxed{3.0} of them.", "I cannot tell.")
    monkeypatch.setattr(answers, "generate_answers", lambda reasoner, traces, **how: said)
    answers.main([str(tiny_checkpoint()), str(tmp_path / "records"), "--out", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())
    assert [found["accuracy"][who][0] for who in ("seeing", "unseeing")] == [0.5, 0.5]


def test_a_record_with_reasoning_is_graded_by_its_checker(tmp_path, monkeypatch):
    def reasoned(name, split, answer):
        said = Message("assistant", (Text(f"I look at it. So \\boxed{{{answer}}}"),))
        asked = Message("user", (Text("which color?"),))
        return Trace(name, (asked, said), "shapes", split, mode="text", answer=answer)

    records = [reasoned("a", "train", "red"), reasoned("b", "test", "red"), reasoned("c", "test", "Blue")]
    native.write(records, tmp_path / "records")
    monkeypatch.setattr(
        answers, "generate_answers", lambda *given, **how: replies("Hm. \\boxed{green}", "It is \\boxed{blue}")
    )
    answers.main([str(tiny_checkpoint()), str(tmp_path / "records"), "--out", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())
    assert [found["accuracy"][who][0] for who in ("seeing", "unseeing")] == [0.5, 0.5]
    lines = [json.loads(line) for line in (tmp_path / "out.items.jsonl").read_text().splitlines()]
    assert [(line["id"], line["scores"]["accuracy"]) for line in lines] == [("b", 0.0), ("c", 1.0)]
    assert [(line["latents"], line["tokens"]) for line in lines] == [(4, 2)] * 2
    [row] = results.read(tmp_path / "out.json", "out.json").rows
    assert (row.method, row.n, row.share.value, row.chance) == ("modal_mixed", 2, 0.5, 0.5)
    with pytest.raises(SystemExit, match=r"out.json' exists"):
        answers.main([str(tiny_checkpoint()), str(tmp_path / "records"), "--out", str(tmp_path / "out.json")])


def test_records_without_training_questions_are_refused_before_any_answer(package, tmp_path, monkeypatch):
    easy_vqa.write(tmp_path / "records")
    native.write((t for t in native.read(tmp_path / "records") if t.split == "test"), tmp_path / "test")
    monkeypatch.setattr(answers, "generate_answers", None)
    with pytest.raises(SystemExit, match="no records with split 'train'"):
        answers.main([str(tiny_checkpoint()), str(tmp_path / "test"), "--out", str(tmp_path / "out.json")])
    with pytest.raises(ValueError, match="fewer than two tokens"):
        language.losses(untrained("direct")[0].backbone, ["a"])


def test_noise_of_an_answer_goes_by_its_row(monkeypatch):
    (reasoner, _), rows, generate = untrained("direct"), [], answers.generate

    def noted(*given, row_ids=None, **how):
        rows.extend(row_ids or [None])
        return generate(*given, row_ids=row_ids, **how)

    monkeypatch.setattr(answers, "generate", noted)
    answers.generate_answers(
        reasoner, [Trace("q", (Message("user", (Text("red?"),)),))] * 3, batch_size=2, max_new_tokens=2
    )
    assert rows == [0, 1, 2]


def test_a_reasoner_answers_each_question_from_its_own_picture():
    reasoner, _ = untrained("direct")
    asked = [
        Trace(str(i), (Message("user", (Image(PILImage.new("RGB", (128, 128), c)), Text("which?"))),))
        for i, c in enumerate(("red", "blue", "green"))
    ]
    together = answers.generate_answers(reasoner, asked, batch_size=2, max_new_tokens=4)
    assert together == [answers.generate_answers(reasoner, [one], max_new_tokens=4)[0] for one in asked]


def test_plain_text_is_as_it_was_until_weights_change(tmp_path, monkeypatch):
    reasoner, _ = checkpoint.load(tiny_checkpoint())
    reasoner.backbone.model.save_pretrained(tmp_path / "base")
    reasoner.backbone.tokenizer.save_pretrained(tmp_path / "base")
    reasoner.backbone.image_processor.save_pretrained(tmp_path / "base")
    (tmp_path / "texts.txt").write_text("The elf goes down.\n\nThere is a hole to the right of the elf.\n")
    given = [
        f"--{name}={tmp_path / file}" for name, file in {"base": "base", "texts": "texts.txt", "out": "o.json"}.items()
    ]
    language.main([str(tiny_checkpoint()), *given])
    same = json.loads((tmp_path / "o.json").read_text())
    assert same["n"] == 2 and same["worse"] == [0.0, 0.0, 0.0] and same["before"] == same["after"] > 1

    load = backbones.load_backbone

    def damaged(name):
        backbone = load(name)
        with torch.no_grad():
            backbone.model.lm_head.weight.mul_(-1)
        return backbone

    monkeypatch.setattr("latent_reason.model.backbones.load_backbone", damaged)
    language.main([str(tiny_checkpoint()), *given, "--overwrite"])
    assert json.loads((tmp_path / "o.json").read_text())["before"] != same["before"]


def test_a_loss_is_that_of_each_text_alone():
    backbone = untrained("direct")[0].backbone
    two = ["The elf goes down.", "There is a hole to the right."]
    found = language.losses(backbone, two)
    ids = torch.tensor([backbone.tokenizer(two[1], add_special_tokens=False)["input_ids"]])
    wanted = backbone.model(input_ids=ids, labels=ids).loss.item()
    assert_close(found[1], wanted)
    assert_close(language.losses(backbone, two[::-1]), [found[1], found[0]])


def test_there_are_docstrings_enough(tmp_path):
    stdlib = sysconfig.get_path("stdlib")
    assert len(texts.docstrings(stdlib)) > 50
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.py").write_text(f'"""Module."""\ndef f():\n    """{"Long " * 90}end."""\n')
    (tmp_path / "b.py").write_text("not ( python")
    assert texts.inner_docstrings(tmp_path) == ["Long " * 90 + "end."] and not texts.docstrings(tmp_path)


def test_texts_come_back_as_they_were_written(tmp_path):
    given = ["One line.", 'Two\nlines and a "quotation".', "Ünïcode"]
    texts.write(given, tmp_path / "texts.jsonl")
    assert texts.lines(tmp_path / "texts.jsonl") == given
    with pytest.raises(FileExistsError, match="was not changed"):
        texts.write(given, tmp_path / "texts.jsonl")
    (tmp_path / "plain.txt").write_text("As it is.\n\nAnother.\n")
    assert texts.lines(tmp_path / "plain.txt") == ["As it is.", "Another."]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="contains no text"):
        texts.lines(tmp_path / "empty.txt")
    with pytest.raises(FileNotFoundError, match="Create it with one text per line"):
        texts.lines(tmp_path / "nothing.txt")


def test_every_batch_of_training_rehearses_a_few_texts(tmp_path):
    texts.write(["The elf goes down.", "There is a hole to the right."], tmp_path / "texts.jsonl")
    reasoner, _ = untrained()
    made = recipe(tmp_path, data__replay_texts=str(tmp_path / "texts.jsonl"), data__replay_batch_size=3)
    data = TraceData(made.data, reasoner, objective_for(reasoner), "mixed", 0, frozen_vision=True)
    data.setup()
    batch = next(iter(data.batches()))
    assert len(batch.ids) == 8 + 3 and set(batch.spans[:, 0].tolist()) <= set(range(8))
    said = [
        reasoner.vocabulary.decode(row[there].tolist())
        for row, there in zip(batch.ids[8:], batch.mask[8:], strict=True)
    ]
    assert set(said) <= {"The elf goes down.", "There is a hole to the right."}
    first = batch.mask[8:].int().argmax(1)
    assert not batch.loss_weight[8:].gather(1, first[:, None]).any(), "nothing is before a first word"
    assert (batch.loss_weight[8:] > 0).sum() == batch.mask[8:].sum() - 3
    assert len(next(iter(data.held_out_batches())).batch.ids) == 4, "held-out items are by themselves"
    terms = loss_of(reasoner, batch)
    assert terms.total.isfinite()


def test_every_batch_rehearses_reasoning_in_text(tmp_path):
    """Records of a folder are trained beside the traces as they are, with their pictures."""
    task = make("frozenlake_plan", level=(3,))
    native.write([replace(task.trace(task[i], "text"), id=f"t{i}") for i in range(3)], tmp_path / "texts")
    reasoner, _ = untrained()
    made = recipe(tmp_path, data__replay_folder=str(tmp_path / "texts"), data__replay_batch_size=2)
    data = TraceData(made.data, reasoner, objective_for(reasoner), "mixed", 0, frozen_vision=True)
    data.setup()
    batches = data.batches()
    batch = next(iter(batches))
    assert len(batch.ids) == 8 + 2 and set(batch.spans[:, 0].tolist()) <= set(range(8)), "they have no sketch"
    replayed = [reasoner.processor.encode(task.trace(task[i], "text")) for i in range(3)]
    for row in (8, 9):
        there = batch.mask[row]
        assert batch.ids[row][there].tolist() in [one.ids for one in replayed] and batch.loss_weight[row].any()
        assert row in batch.image_rows, "the picture of its question is there"
    assert loss_of(reasoner, batch).total.isfinite()


@pytest.mark.parametrize(
    "mode, split, sentence",
    [
        ("mixed", "train", r"replay_folder: .*traces.jsonl:1: has sketches, but text alone is replayed.*--mode text"),
        ("text", "val", "has no training record that could be replayed"),
    ],
)
def test_a_folder_that_cannot_be_replayed_is_said(mode, split, sentence, tmp_path):
    task = make("frozenlake_plan", level=(3,), chunk=(1, 1))
    native.write([replace(task.trace(task[0], mode), split=split)], tmp_path / "records")
    made = recipe(tmp_path, data__replay_folder=str(tmp_path / "records"))
    reasoner, _ = untrained()
    with pytest.raises(ValueError, match=sentence):
        TraceData(made.data, reasoner, objective_for(reasoner), "mixed", 0, frozen_vision=True).setup()


def test_replayed_records_are_part_of_the_data_of_a_run(tmp_path, capsys):
    """Another folder is other data for a resumed run; a second run on the same rows replays as the first; training records
    count, wherever they stand."""
    task, (reasoner, _) = make("frozenlake_plan", level=(3,)), untrained()
    held_out = [replace(task.trace(task[i], "text"), id=f"v{i}", split="val") for i in range(3)]
    texts = [replace(task.trace(task[i], "text"), id=f"t{i}") for i in range(3)]
    native.write([*held_out, *texts], tmp_path / "a")
    native.write([*held_out, *texts[:2]], tmp_path / "b")
    rows, digests, sizes = {}, set(), []
    for folder in ("a", "a", "b"):
        made = recipe(tmp_path, data__replay_folder=str(tmp_path / folder), data__replay_batch_size=2, data__items=2)
        data = TraceData(made.data, reasoner, objective_for(reasoner), "mixed", 0, frozen_vision=True, rows=rows)
        data.setup()
        data.setup("fit")
        sizes.append((len(data.replayed), len(data.training_batch(rows["train"][:2], 0).ids)))
    assert sizes == [(2, 4)] * 3 and "has more than 2 training records" in " ".join(capsys.readouterr().out.split())
    for folder in ("a", "b"):
        made = recipe(tmp_path, data__replay_folder=str(tmp_path / folder), data__items=24)
        data = TraceData(made.data, reasoner, objective_for(reasoner), "mixed", 0, frozen_vision=True)
        data.setup()
        digests.add(data.digest())
    assert len(digests) == 2


def test_a_record_without_an_answer_is_not_replayed(tmp_path):
    task, (reasoner, _) = make("frozenlake_plan", level=(3,)), untrained()
    native.write([replace(task.trace(task[0], "text"), id="t0"), task.trace(task[1], "text").prompt()], tmp_path / "a")
    made = recipe(tmp_path, data__replay_folder=str(tmp_path / "a"))
    with pytest.raises(ValueError, match=r"data\.replay_folder: .*traces.jsonl:2: .*no assistant turn at the end"):
        TraceData(made.data, reasoner, objective_for(reasoner), "mixed", 0, frozen_vision=True).setup()


def test_a_file_of_texts_that_is_not_there_is_said(tmp_path):
    made = recipe(tmp_path, data__replay_texts=str(tmp_path / "nothing.txt"))
    reasoner, _ = untrained()
    with pytest.raises(FileNotFoundError, match=r"Text file .* not found"):
        TraceData(made.data, reasoner, objective_for(reasoner), "mixed", 0, frozen_vision=True).setup()


def test_the_verb_collects_from_installed_packages(tmp_path, capsys):
    main(["texts", str(tmp_path / "texts.jsonl"), "--packages", "einops"])
    assert "--data.replay_texts" in capsys.readouterr().out and len(texts.lines(tmp_path / "texts.jsonl")) > 3
    with pytest.raises(SystemExit, match="package 'nothing_such' is not installed"):
        main(["texts", str(tmp_path / "more.jsonl"), "--packages", "nothing_such"])
