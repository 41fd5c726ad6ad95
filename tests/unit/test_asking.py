"""Questions about one's own pictures: what is answered, shown, saved and refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import refused
from tiny_runs import ROOT, short, tiny_checkpoint, untrained

from latent_reason.asking import inspect_latents
from latent_reason.asking.ask import AskOptions, DrawnSketch, answered, ask, question, sampling_steps, stream_answer
from latent_reason.asking.examples import held_out_examples
from latent_reason.checkpoint import CONFIG_FILE, load
from latent_reason.cli import main
from latent_reason.decoding.config import GenerationConfig
from latent_reason.tasks import make
from latent_reason.visualization.answer_figure import arrange_columns, draw_answer_figure, save_figure
from latent_reason.visualization.answer_page import as_gif, write_page
from latent_reason.visualization.answer_view import SketchView, draw_latents, view_answer
from latent_reason.visualization.storyboard import DecodedTrace, decode_sketches

SHORT = {"max_new_tokens": 40}


@pytest.fixture(scope="module")
def model():
    return untrained(head="flow")


@pytest.fixture(scope="module")
def board():
    return make("frozenlake_plan", split="test", level=4)[3].images[0]


@pytest.fixture(scope="module")
def trace(board):
    return question([board], "Which moves bring the elf to the gift?")


@pytest.fixture
def opens_at_once(monkeypatch):
    """An untrained model opens no sketch by itself: let it begin with one."""
    plain = AskOptions.config.fget

    def config(self) -> GenerationConfig:
        made = plain(self)
        return replace(made, latent_mode="first") if made.latent_mode == "learned" else made

    monkeypatch.setattr(AskOptions, "config", property(config))


# -- answers -----------------------------------------------------------------------------------------------------------
def test_pieces_are_those_of_the_whole_answer(model, trace, opens_at_once):
    reasoner, _ = model
    *pieces, last = stream_answer(reasoner, trace, AskOptions(**SHORT))
    whole = ask(reasoner, trace, AskOptions(**SHORT))
    assert isinstance(last, DecodedTrace) and torch.equal(last.rollout.ids, whole.rollout.ids)
    assert "".join(p for p in pieces if isinstance(p, str)) == whole.rollout.text(0, reasoner.vocabulary)
    [sketch] = [p for p in pieces if isinstance(p, DrawnSketch)]
    [span] = whole.rollout.spans_of(0)
    assert sketch.grid == span.grid
    torch.testing.assert_close(sketch.latents, whole.rollout.latents(span))


def test_replaced_latents_are_what_their_name_says(model, trace, opens_at_once):
    reasoner, _ = model

    def first(**options):
        rollout = ask(reasoner, trace, AskOptions(**SHORT, **options)).rollout
        return [rollout.latents(span) for span in rollout.spans_of(0)]

    [own], [zero], [noise] = first(), first(latents="zero"), first(latents="noise")
    assert (zero == 0).all() and first(latents="off") == []
    # a later latent depends on the earlier ones, so only the first has the norm of the model's own
    torch.testing.assert_close(noise[0].norm(), own[0].norm())
    assert torch.cosine_similarity(noise[0], own[0], dim=0) < 0.9
    torch.testing.assert_close(first(latents="noise", seed=0)[0], noise)
    assert not torch.allclose(first(latents="noise", seed=1)[0], noise)
    other = torch.randn(3, own.shape[1])
    [foreign] = first(latents="foreign", foreign=[other])
    torch.testing.assert_close(foreign[:3], other)
    [short_span] = first(latents_per_span=2)
    assert len(short_span) == 2 != len(own)


def test_options_that_do_not_fit_are_refused(model, trace, monkeypatch):
    with pytest.raises(ValueError, match="needs the latents of another answer"):
        AskOptions(latents="foreign")
    with pytest.raises(ValueError, match="must be one of on, off"):
        AskOptions(latents="gone")
    with pytest.raises(ValueError, match="is for plain decoding"):
        AskOptions(latents="noise", decoding="lead")
    monkeypatch.setattr(type(model[0].backbone), "max_length", 20)
    with pytest.raises(ValueError, match="positions, and the model has 20"):
        ask(model[0], trace)


def test_steps_are_set_for_one_answer_only(model, trace):
    reasoner, _ = model
    before = reasoner.head.steps
    with pytest.raises(RuntimeError), sampling_steps(reasoner, 2):
        assert reasoner.head.steps == 2
        raise RuntimeError
    assert reasoner.head.steps == before
    direct = load(tiny_checkpoint("text_cot"))[0]
    with pytest.raises(ValueError, match="no head, which draws a latent in one pass"):
        ask(direct, trace, AskOptions(steps=2))


def test_a_chat_goes_on_with_its_sketches(model, trace, opens_at_once):
    reasoner, decoder = model
    decoded = ask(reasoner, trace, AskOptions(**SHORT))
    pictures = decode_sketches(reasoner, decoder, decoded.rollout, 0, trace.images()[-1])
    chat = question([], "And then?", answered(decoded, reasoner, pictures))
    assert [m.role for m in chat.messages] == ["user", "assistant", "user"] and len(chat.sketches()) == 1
    assert ask(reasoner, chat, AskOptions(**SHORT)).rollout.text(0, reasoner.vocabulary)


# -- what latents say --------------------------------------------------------------------------------------------------
def test_denoising_begins_with_noise_and_ends_with_the_sketch(trace, opens_at_once):
    reasoner, decoder = load(ROOT / "checkpoints" / "frozenlake-tiny")
    reasoner.head.scale.fill_(1.0)  # it has learned a small residual, so that noise hardly shows
    options = AskOptions(max_new_tokens=20, steps=3)
    frames = inspect_latents.denoising_frames(reasoner, decoder, trace, options)
    [sketch, *_] = decode_sketches(reasoner, decoder, ask(reasoner, trace, options).rollout, 0, trace.images()[-1])
    assert len(frames) == 4
    difference = [np.abs(np.asarray(frame, float) - np.asarray(sketch, float)).max() for frame in frames]
    assert difference[-1] <= 1 and difference[0] > 30, "one of 255 is rounding"
    with Image.open(BytesIO(as_gif(frames))) as gif:
        assert gif.n_frames == 4 and gif.size[0] == 256
    with pytest.raises(ValueError, match="sketches, so there is none of number 10"):
        inspect_latents.denoising_frames(reasoner, decoder, trace, options, span=9)
    with pytest.raises(ValueError, match="plain decoding"):
        inspect_latents.denoising_frames(reasoner, decoder, trace, AskOptions(latents="zero"))


def test_the_logit_lens_reads_the_state_after_each_latent(model, trace, opens_at_once):
    """The tokens after the last latent but one come from the state that the last latent was drawn from."""
    reasoner, _ = model
    decoded = ask(reasoner, trace, AskOptions(**SHORT))
    [span] = decoded.rollout.spans_of(0)
    [tokens] = inspect_latents.tokens_after(reasoner, decoded, top=2)
    assert len(tokens) == span.length and all(len(one) == 2 for one in tokens)
    zeroed = decoded.rollout.latent_embeds.clone()
    zeroed[0, span.start : span.start + span.length] *= -30
    changed = replace(decoded.rollout, latent_embeds=zeroed)
    assert inspect_latents.tokens_after(reasoner, decoded._replace(rollout=changed), top=2) != [tokens]


def test_a_sketch_is_most_similar_to_itself(model):
    reasoner, _ = model
    task = make("frozenlake_plan", split="train", level=4)
    pictures = [step.sketch for i in range(6) for step in task[i].steps if step.sketch is not None]
    known = inspect_latents.encode_pictures(reasoner, pictures)
    [(first, cosine), (_, second)] = inspect_latents.most_similar(known[2], known, top=2)
    assert first == 2 and cosine == pytest.approx(1, abs=1e-4) and second < cosine
    assert inspect_latents.most_similar(known[2][:1], known) == []


# -- views, figures, pages ---------------------------------------------------------------------------------------------
def test_a_figure_holds_every_step_in_order(model, trace, opens_at_once, tmp_path):
    reasoner, decoder = model
    view = view_answer(reasoner, decoder, ask(reasoner, trace, AskOptions(**SHORT)), is_right=False)
    columns = arrange_columns(view)
    assert [column.caption for column in columns] == ["input", "sketch 1", "answer"] and columns[-1].mark is False
    figure = draw_answer_figure(view, 7.0)
    for ending in ("png", "pdf", "svg"):
        save_figure(figure, tmp_path / f"a.{ending}")
        first = (tmp_path / f"a.{ending}").read_bytes()
        if ending != "svg":  # its ids are random
            save_figure(draw_answer_figure(view, 7.0), tmp_path / f"a.{ending}")
            assert (tmp_path / f"a.{ending}").read_bytes() == first
    narrow, wide = (draw_answer_figure(view, width).get_size_inches() for width in (2.0, 7.0))
    assert narrow[0] <= 2 and narrow[1] > wide[1], "bands instead of a cut"


def test_latents_without_a_decoder_are_shown_by_color(model, trace, opens_at_once):
    reasoner, _ = model
    view = view_answer(reasoner, None, ask(reasoner, trace, AskOptions(**SHORT)))
    [sketch] = [step for step in view.steps if isinstance(step, SketchView)]
    assert not sketch.is_rendered and "latents 1" in [column.caption for column in arrange_columns(view)]
    z = torch.randn(6, 8)
    one, two = draw_latents([z[:4], torch.cat([z[4:], z[:2]])], [(2, 2), (2, 2)])
    grid = [np.asarray(p)[:: p.height // 2, :: p.width // 2].reshape(-1, 3) for p in (one, two)]
    assert (grid[0][:2] == grid[1][2:]).all() and (grid[0][0] != grid[0][1]).any(), "equal latents, equal colors"
    assert len(draw_latents([z[:2]], [(3, 3)])) == 1 and draw_latents([], []) == []


def test_a_page_escapes_what_it_shows(model, board, opens_at_once):
    reasoner, decoder = model
    asked = question([board], "<script>alert(1)</script>")
    view = view_answer(reasoner, decoder, ask(reasoner, asked, AskOptions(**SHORT)), about={"seed": "<b>"})
    page = write_page([view], "a <title>")
    assert "<script" not in page and "&lt;script&gt;" in page and "<b>" not in page and "http" not in page
    assert page.count("data:image/png") == 2


# -- the verb ask, and checkpoints of own data -------------------------------------------------------------------------
def test_ask_prints_and_saves_an_answer(board, tmp_path, monkeypatch, capsys):
    short(monkeypatch)
    board.save(tmp_path / "board.png")
    given = ["ask", str(tiny_checkpoint()), "--image", str(tmp_path / "board.png"), "--question", "Where?"]
    page = tmp_path / "answer.html"
    main([*given, "--max-new-tokens", "30", "--out", str(page), "--latent-tokens"])
    assert f"Saved: {page}" in capsys.readouterr().out and "Where?" in page.read_text()
    before = (tmp_path / "board.png").read_bytes()
    assert "add --overwrite" in refused(main, *given, "--out", page)
    assert "add --overwrite" in refused(main, *given, "--out", tmp_path / "board.png")
    assert (tmp_path / "board.png").read_bytes() == before, "an input is never written"
    assert "belong together" in refused(main, *given, "--latents", "foreign")
    assert "does not end in" in refused(main, *given, "--out", "answer.txt")
    assert "Add --out FILE.html" in refused(main, *given, "--similar", "3")
    (tmp_path / "text.png").write_text("no picture")
    assert "not a readable PNG" in refused(
        main, "ask", tiny_checkpoint(), "--image", tmp_path / "text.png", *given[-2:]
    )
    assert "there is no picture" in refused(main, "ask", tiny_checkpoint(), "--image", "none.png", *given[-2:])


def test_a_checkpoint_of_records_never_falls_back_on_a_task(tmp_path, monkeypatch, capsys):
    """Its notes may name the default task, which it never used."""
    short(monkeypatch)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_checkpoint(), "model")
    config = json.loads((tmp_path / "model" / CONFIG_FILE).read_text())
    config["notes"]["data"] = {"task": "frozenlake_plan", "folder": "mine", "levels": [4]}
    (tmp_path / "model" / CONFIG_FILE).write_text(json.dumps(config))
    for verb in ("generate", "render"):
        said = refused(main, verb, "model")
        assert "trained on the records of 'mine', which are not there" in said and "--folder" in said
    main(["data", "make", "shortest_ways", "mine", "--n", "3", "--split", "test", "--levels", "3"])
    main(["generate", "model", "--index", "1"])
    shown = capsys.readouterr().out
    examples = held_out_examples(load("model")[0], "model", [1])
    assert examples[0].trace.task == "shortest_ways" and "gold answer: " in shown and "scores" not in shown
    main(["render", "model", "--n", "2", "--out", "sheet.png"])
    assert "2 items" in capsys.readouterr().out
    assert "3 test records, so there is none of number 3" in refused(main, "generate", "model", "--index", 3)
    main(["generate", "model", "--task", "frozenlake_plan", "--level", "3"])
    assert "scores: " in capsys.readouterr().out, "a task that is named is used"
