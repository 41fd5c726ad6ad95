"""The probes on reasoners whose answer is a known function of their latents, or none of them.

The engine is replaced by one that writes the first chunk of the gold plan, draws one latent, the code of its item, and
goes on either with what the latent says (``Reader``) or with its own plan whatever the latent is (``Parrot``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from eval import interventions, probe, verdict
from eval.interventions import LatentStatistics, Mean, Noise, Oracle
from latent_reason import tasks
from latent_reason.contracts.closeness import assert_close
from latent_reason.decoding.config import GenerationConfig
from latent_reason.decoding.items import Result
from latent_reason.decoding.queue import Cost, Finished, Request
from latent_reason.decoding.replacements import StoredLatents, Zero
from latent_reason.decoding.rollout import Rollout, Span
from latent_reason.model.backbones.tiny import train_tokenizer
from latent_reason.model.batch import LATENT, TEXT
from latent_reason.model.reasoner import MethodRecord
from latent_reason.model.tokenization import Vocabulary
from latent_reason.tasks.frozenlake_words import moves_in

ITEMS = 24
GRID = (1, 1)


@pytest.fixture(scope="module")
def lake():
    """Boards whose plans have at least three moves, so that a sketch after the first one matters."""
    task = tasks.make("frozenlake_plan", level=4, length=(3, 5), chunk=(1, 1))
    return task, probe.sketched_items(task, ITEMS)


@dataclass
class Prompt:
    items: list

    def to(self, device):
        return self


@dataclass
class Processor:
    """Stands for a processor, whose batches are what they are made of."""

    named: dict

    def __call__(self, traces, *, generate):
        return Prompt([self.named[t.id] for t in traces])

    def preprocess_sketches(self, pictures):
        return Prompt(pictures)


class Engine:
    """Stands for a reasoner and for decode_requests(). ``codes`` (ITEMS, ITEMS) holds the latent of each item."""

    method = MethodRecord("modal_mixed")
    device = torch.device("cpu")

    def __init__(self, task, items):
        self.task, self.items = task, items
        self.codes = 3 * torch.eye(len(items))
        self.vocabulary = Vocabulary(train_tokenizer())
        self.backbone = SimpleNamespace(token_grid=lambda picture: (4, 4))
        self.backbone.embed = lambda ids: torch.full((*ids.shape, len(items)), 0.1)
        self.target, self.is_renderable = SimpleNamespace(encode_embeddings=self.see), True
        self.hides_images = False
        self.latent_grid_for, self.scale_latents = (lambda size: GRID), (lambda z: z)
        self.head, self.switch = SimpleNamespace(is_stochastic=True), SimpleNamespace(start="token")
        self.boards = {self.drawn(item).tobytes(): i for i, item in enumerate(items)}

    def drawn(self, item):
        return self.task.render_state(item, self.task.state_said(item, [self.moves(item)[0]]))

    def see(self, looked):
        """A part of a picture is no board that is known."""
        known = [self.boards.get(picture.tobytes()) for picture in looked.items]
        return [(torch.zeros(len(self.items)) if i is None else self.codes[i])[None] for i in known]

    @property
    def processor(self):
        return Processor(self.named)

    @property
    def named(self):
        return {item.id: item for item in self.items}

    def moves(self, item) -> list[str]:
        return item.answer.split(",")

    def go_on(self, item, z: torch.Tensor | None) -> list[str]:
        raise NotImplementedError

    def __call__(self, reasoner, requests, config, num_slots):
        self.blindfold = config.hide_images
        for request in requests:
            item = self.named[request.trace.id]
            ids = (
                list(request.forced_tokens)
                if request.forced_tokens
                else [*self.vocabulary.encode_text(f"Go {self.moves(item)[0]}."), self.vocabulary.open]
            )
            if config.latent_mode == "off":
                ids = [i for i in ids if i != self.vocabulary.open]
            z, row = None, request.number
            if self.vocabulary.open in ids and config.latents_per_span != 0:
                z = self.codes[self.items.index(item)]
                if config.latent_hook:
                    at = torch.tensor([row]), torch.tensor([0]), torch.tensor([0])
                    z = config.latent_hook(*at, z[None], {row: ids})[0]
            said = moves_in(self.vocabulary.decode(ids))
            rest, spans = self.go_on(item, z), []
            words = self.vocabulary.encode_text(f" Then {' '.join(rest)}. \\boxed{{{','.join(said + rest)}}}")
            if self.vocabulary.open in ids:
                spans.append(Span(0, len(ids), int(z is not None), GRID, "count"))
                words = [self.vocabulary.close, *words]
            rollout = self.rollout([(ids, z, words)], spans)
            yield Finished(request, rollout, 0, Cost.of(rollout, 0))

    def rollout(self, rows, spans) -> Rollout:
        steps = max(len(ids) + (z is not None) + len(words) for ids, z, words in rows)
        ids, kind = torch.zeros(2, len(rows), steps, dtype=torch.long)
        vectors = torch.zeros(len(rows), steps, len(self.items))
        for row, (before, z, after) in enumerate(rows):
            line = [*before, *([self.vocabulary.latent] if z is not None else []), *after]
            ids[row, : len(line)], kind[row, : len(line)] = torch.tensor(line), TEXT
            if z is not None:
                kind[row, len(before)], vectors[row, len(before)] = LATENT, z
        return Rollout(None, ids, kind, vectors, *[None] * 7, spans=spans)


class Reader(Engine):
    """Goes on as the board the latent stands for asks; without a latent it does not know how."""

    def go_on(self, item, z):
        if z is None or z.norm() < 1e-6:
            return ["U", "U"]
        return self.moves(self.items[int((self.codes @ z).argmax())])[1:]


class Parrot(Engine):
    """Goes on with the item's own plan, whatever the latent is."""

    def go_on(self, item, z):
        return self.moves(item)[1:]


class Looker(Engine):
    """Goes on with the item's own plan as long as it sees the picture."""

    def go_on(self, item, z):
        return ["U", "U"] if self.blindfold else self.moves(item)[1:]


def probed(engine_class, lake, monkeypatch) -> dict:
    engine = engine_class(*lake)
    monkeypatch.setattr("latent_reason.decoding.items.decode_requests", engine)
    return probe.probe(engine, *lake, seed=0, batch_size=10)


def test_a_reader_of_latents_is_found_out(lake, monkeypatch):
    report = probed(Reader, lake, monkeypatch)
    assert report["as_generated"]["accuracy"] == 1 and report["as_generated"]["sketches_per_item"] == 1
    assert report["oracle"]["accuracy"] == 1 and report["oracle"]["difference"]["value"] == 0
    for name in (
        "zero",
        "mean",
        "noise",
        "noise_diagonal",
        "dummy",
        "region",
        "markers",
        "removed",
        "foreign",
        "blind",
    ):
        assert report[name]["accuracy"] <= 0.5 and report[name]["difference"]["low"] > 0.3, name
        assert report[name]["flip_rate"] >= 0.5 and report[name]["mcnemar_p"] < 0.01, name
    assert report["image_masked"]["difference"]["value"] == 0, "what it needs is in the latents"
    foreign = report["foreign"]
    assert foreign["follow_rate"] == 1 and foreign["follow_n"] >= 20
    assert foreign["follow_by_chance"] < 0.6 and foreign["follow_difference"]["low"] > 0.3
    assert 0 < report["text_corrupted"]["difference"]["value"] <= 1, "the first move counts too"


def test_latents_that_nobody_reads_are_found_out(lake, monkeypatch):
    report = probed(Parrot, lake, monkeypatch)
    assert report["as_generated"]["accuracy"] == 1
    for name in (
        "zero",
        "mean",
        "noise",
        "dummy",
        "region",
        "permuted",
        "first_half",
        "markers",
        "removed",
        "foreign",
        "oracle",
        "again",
        "image_blanked",
        "image_masked",
        "blind",
    ):
        assert report[name]["holm_p"] == 1
        unseen = round(1 - 0.025 ** (1 / report[name]["n"]), 4)  # the exact bound of none of n
        assert report[name]["difference"] == {"value": 0, "low": -unseen, "high": unseen}, name
        assert report[name]["flip_rate"] == 0 and report[name]["mcnemar_p"] == 1, name
    foreign = report["foreign"]
    assert foreign["follow_rate"] == foreign["follow_by_chance"]
    assert foreign["follow_difference"]["value"] == 0 and foreign["follow_difference"]["holm_p"] == 1
    assert -0.2 < foreign["follow_difference"]["low"] < 0 < foreign["follow_difference"]["high"] < 0.2
    assert report["text_corrupted"]["difference"]["value"] > 0


def test_words_that_look_back_at_the_picture_are_found_out(lake, monkeypatch):
    report = probed(Looker, lake, monkeypatch)
    assert report["image_masked"]["difference"]["low"] > 0.3
    assert all(r["difference"]["value"] == 0 for n, r in report.items() if n in ("noise", "zero", "image_blanked"))


def test_the_verdict_follows_from_the_figures(lake, monkeypatch):
    monkeypatch.setattr(verdict, "LEAST_N", 20)
    assert "carry content" in verdict.verdict(probed(Reader, lake, monkeypatch))
    assert "No evidence" in verdict.verdict(probed(Parrot, lake, monkeypatch))


def report_of(n=100, follow_n=60, follows=0.2, follow_p=0.01, markers=0.0, p=0.01, **losses) -> dict:
    """A report of the verdict's probes. The intervals exclude 0 wherever there is a loss."""
    parts = {
        name: {"difference": {"value": value, "low": value - 0.05, "high": value + 0.05}, "holm_p": p}
        for name, value in ({"noise": 0.2, "mean": 0.2, "foreign": 0.2, "removed": 0.5} | losses).items()
    }
    parts["markers"] = {"difference": {"value": markers, "low": markers, "high": markers}, "holm_p": 1.0}
    test = {"value": follows, "low": follows - 0.05, "high": 0.3, "holm_p": follow_p}
    parts["foreign"] |= {"follow_n": follow_n, "follow_difference": test, "follow_beyond_idle": test}
    return {"as_generated": {"n": n}} | parts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "The latents carry content"),
        ({"n": 49, "follow_n": 49}, "No verdict: 49 items were probed and 50 are needed, 1 more."),
        ({"n": 50, "follow_n": 50}, "The latents carry content"),
        ({"follow_n": 12}, "12 items had the latents of another item and 50 are needed, 38 more."),
        ({"follow_p": 0.06}, "a foreign sketch is not followed"),
        ({"follows": -0.2}, "a foreign sketch is not followed"),
        ({"p": 0.06}, "No evidence"),
        ({"noise": -0.2, "markers": 0.3}, "No evidence"),
        ({"mean": -0.2, "markers": 0.05}, "Only the markers matter: they alone keep 90%"),
    ],
)
def test_the_verdict_follows_the_corrected_tests_and_needs_enough_items(change, said):
    assert said in verdict.verdict(report_of(**change))


def test_the_verdict_names_missing_probes():
    assert "needs probes that were not run" in verdict.verdict({"as_generated": {"n": 100}})


def test_tests_of_the_verdict_are_corrected_together_and_apart_from_the_others():
    report = {
        "as_generated": {},
        "noise": {"mcnemar_p": 0.01},
        "foreign": {"mcnemar_p": 0.02, "follow_difference": {"p": 0.001}, "follow_beyond_idle": {"p": 0.5}},
    }
    others = {"zero": {"mcnemar_p": 0.02}, **{f"other {n}": {"mcnemar_p": 0.9} for n in range(15)}}
    for further in ({}, others):
        report |= further
        verdict.correct_p_values(report)
        foreign = report["foreign"]
        assert [report["noise"]["holm_p"], foreign["holm_p"]] == [0.03, 0.04]
        assert [foreign[name]["holm_p"] for name in verdict.FOLLOW_TESTS] == [0.004, 0.5]
    assert report["zero"]["holm_p"] == 0.32


def test_a_model_that_never_sketches(lake, monkeypatch):
    """Its own words are all there is: nothing to replace, no donor, no failure."""

    class Silent(Parrot):
        def __call__(self, reasoner, requests, config, num_slots):
            return super().__call__(reasoner, requests, replace(config, latent_mode="off"), num_slots)

    report = probed(Silent, lake, monkeypatch)
    assert report["as_generated"]["sketches_per_item"] == 0
    assert report["foreign"]["follow_rate"] is None and report["foreign"]["follow_n"] == 0
    assert report["noise"]["difference"]["value"] == 0


# -- who is probed, and with what ------------------------------------------------------------------------------------
def test_probed_items_differ_and_have_a_sketch(lake):
    task, items = lake
    assert len({task.canon(i.state) for i in items}) == len(items) == ITEMS
    assert all(any(s.sketch is not None for s in i.steps) for i in items)


def test_no_item_with_a_sketch_is_an_error_not_a_loop():
    with pytest.raises(ValueError, match=r"none of 10\d items of frozenlake_plan"):
        probe.sketched_items(tasks.make("frozenlake_plan", level=3, chunk=(9, 9)), 3)


def result(item, answer="U", latents=1, level=4) -> Result:
    rollout = SimpleNamespace(spans_of=lambda row: [0] * latents, latents=lambda span: torch.zeros(1, 4))
    return Result(SimpleNamespace(level=level, answer=answer), "", {}, rollout, 0)


def test_donors_have_another_answer_the_same_level_and_a_sketch():
    task = tasks.make("frozenlake_plan", level=4)
    results = [result(0, "U"), result(1, "D"), result(2, "U"), result(3, "R", latents=0), result(4, "L", level=5)]
    for seed in range(5):
        given = probe.choose_donors(task, results, seed)
        assert given[0] == given[2] == 1 and given[1] in (0, 2) and given[3] in (0, 1, 2) and given[4] == -1
    many = [result(i, str(i % 5)) for i in range(40)]
    assert (
        probe.choose_donors(task, many, 1) == probe.choose_donors(task, many, 1) != probe.choose_donors(task, many, 2)
    )
    assert all(
        many[d].item.answer != r.item.answer for r, d in zip(many, probe.choose_donors(task, many, 3), strict=True)
    )


def test_corrupted_text_flips_one_move(lake):
    task, items = lake
    engine = Parrot(task, items)
    requests = [Request(task.trace(item, "mixed"), number) for number, item in enumerate(items)]
    answers = engine(engine, requests, GenerationConfig(), 1)
    results = [Result(item, "", {}, answer.rollout, 0) for item, answer in zip(items, answers, strict=True)]
    for r in results:
        ids = interventions.corrupted_prefix(engine, task, r)
        assert ids[-1] == engine.vocabulary.open and ids == interventions.corrupted_prefix(engine, task, r), (
            "the same each time"
        )
        was, now = engine.moves(r.item)[:1], moves_in(engine.vocabulary.decode(ids))
        assert len(now) == 1 and now != was


# -- what stands in for latents --------------------------------------------------------------------------------------
def call(intervention, vectors, rows=None, spans=None, slots=None, written=None):
    n = len(vectors)
    rows, spans, slots = (torch.tensor(x if x is not None else [0] * n) for x in (rows, spans, slots))
    return intervention(rows, spans, slots, vectors, written)


@pytest.fixture(scope="module")
def bank():
    """Latents of 400 items, two slots of three channels with known means and covariances; some cut by the budget."""
    random = torch.Generator().manual_seed(0)
    root = torch.tensor([[[2.0, 0, 0], [1, 1, 0], [0, 0, 0.5]], [[1.0, 0, 0], [0, 3, 0], [0, 1, 1]]])
    mean = torch.tensor([[5.0, 0, 0], [0, -5, 1]])
    results = []
    for _ in range(400):
        z = mean + (root @ torch.randn(2, 3, 1, generator=random))[..., 0]
        spans = [Span(0, 0, 2, (1, 2), "count"), Span(0, 2, 1, (1, 2), "budget")]
        rollout = SimpleNamespace(spans_of=lambda row, s=spans: s, latents=lambda span, z=z: z[: span.length])
        results.append(Result(None, "", {}, rollout, 0))
    return LatentStatistics(results), mean, root @ root.mT


def test_bank_holds_mean_and_shrunk_covariance(bank):
    found, mean, cov = bank
    means, root = (torch.stack(x) for x in zip(*(found.slot((1, 2), n) for n in (0, 1)), strict=True))
    assert torch.allclose(means, mean, atol=0.35)
    shrunk = 0.9 * cov + 0.1 * torch.diag_embed(cov.diagonal(dim1=1, dim2=2))
    assert torch.allclose(root @ root.mT, shrunk, atol=1.0)


def test_noise_has_the_norm_of_what_was_drawn_and_the_directions_of_the_bank(bank):
    found, mean, cov = bank
    noise, every = Noise(found, {0: (1, 2), 1: (3, 3)}, 1), range(500)
    vectors = torch.arange(1.0, 501)[:, None] * torch.tensor([0.6, 0.0, 0.8])
    drawn = call(noise, vectors, spans=every, slots=[1] * 500)
    assert torch.allclose(drawn.norm(dim=-1), vectors.norm(dim=-1))
    free = mean[1] + torch.randn(4000, 3, generator=torch.Generator().manual_seed(2)) @ torch.linalg.cholesky(cov[1]).mT
    assert torch.allclose(F.normalize(drawn, dim=-1).mean(0), F.normalize(free, dim=-1).mean(0), atol=0.12)
    other = call(Noise(found, {0: (1, 2)}, 2), vectors, spans=every, slots=[1] * 500)
    assert not torch.allclose(other, drawn)
    again = call(noise, vectors[7:9], spans=[7, 8], slots=[1, 1])
    assert torch.equal(again, drawn[7:9]), "whatever else is decoded"
    other = call(noise, vectors[:2], rows=[1, 1])
    assert not torch.allclose(other, vectors[:2]), "a grid nothing was drawn on takes the noise of all"


def test_zero_and_mean(bank):
    found, *_ = bank
    vectors = torch.ones(3, 3)
    assert not call(Zero(), vectors).any()
    means = call(Mean(found, {0: (1, 2), 1: (9, 9)}), vectors, rows=[0, 0, 1], slots=[0, 7, 0])
    first, last = (found.slot((1, 2), n)[0] for n in (0, 1))
    everything = torch.stack(found.latents[None][0]).mean(0)
    assert_close(means, torch.stack([first, last, everything]))  # beyond the last slot, the last one
    short = LatentStatistics(
        [
            Result(
                None,
                "",
                {},
                SimpleNamespace(
                    spans_of=lambda row: [SimpleNamespace(grid=(2, 2), length=3)], latents=lambda s: torch.ones(3, 4)
                ),
                0,
            )
        ]
        * 3
    )
    assert torch.equal(short.slot((2, 2), 3)[0], torch.ones(4)), "spans that a model closed early count"
    assert LatentStatistics([]).slot((1, 2), 0) is None


def test_given_feeds_span_by_span():
    a, b = torch.full((2, 3), 1.0), torch.tensor([[2.0] * 3, [3.0] * 3])
    vectors = torch.zeros(6, 3)
    at = dict(rows=[0, 0, 0, 0, 1, 2], spans=[0, 1, 1, 2, 0, 0], slots=[0, 0, 1, 5, 0, 1])
    free = call(StoredLatents([[a, b], [], [b]]), vectors, **at)
    assert free[:, 0].tolist() == [1, 2, 3, 3, 0, 3], "the last span again, the last slot again, a row without donor"
    only = call(StoredLatents([[a, b], [], [b]], only_stored=True), vectors, **at)
    assert only[:, 0].tolist() == [1, 2, 3, 0, 0, 3]


def test_oracle_encodes_the_board_after_the_written_moves(lake):
    task, items = lake
    engine = Reader(task, items)
    oracle = Oracle(engine, task, items)
    written = [engine.vocabulary.encode_text(f"Go {engine.moves(item)[0]}.") for item in items]
    drawn = call(oracle, torch.zeros(ITEMS, ITEMS), rows=list(range(ITEMS)), written=written)
    assert torch.equal(drawn, engine.codes)
    written[0] = engine.vocabulary.encode_text("Go U U U.")
    assert torch.equal(call(oracle, torch.zeros(1, ITEMS), written=written)[0], engine.codes[0]), "once a span"
