"""Images equal those of the benchmark byte for byte, and every picture reads back."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from latent_reason import tasks
from latent_reason.tasks import frozenlake_board as board
from latent_reason.tasks import frozenlake_view as view
from latent_reason.tasks import vsp
from latent_reason.tasks.stream import Stream

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "vsp_sample"


def has_sprites() -> bool:
    return view.skin_of("auto") == "sprites"


needs_sprites = pytest.mark.skipif(not has_sprites(), reason="the sprites of gymnasium 0.29.1 are not installed")
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason="the VSP sample is not beside the project")
SKINS = [pytest.param("sprites", marks=needs_sprites), "drawn"]


def states(n: int, count: int) -> list[dict]:
    """Boards with the elf anywhere, holes included."""
    result = []
    while len(result) < count:
        stream = Stream.of("view", n, len(result))
        state = board.state_of(board.draw(stream, n))
        result.append(state | {"elf": [stream.below(n), stream.below(n)], "facing": stream.choice("UDLR")})
    return result


def test_nothing_beside_the_folder_is_read(tmp_path):
    (tmp_path / "task4" / "maps" / "level_step1" / "pure_text").mkdir(parents=True)
    (tmp_path / "task4" / "maps" / "level_step1" / "pure_text" / "0.txt").write_text("")
    (tmp_path / "task-main").mkdir()
    with pytest.raises(FileNotFoundError, match=r"task-main.*level_step1 is missing"):
        list(vsp.check_items(tmp_path / "task-main", levels=(1,)))


@needs_sprites
@needs_sample
def test_pictures_equal_the_benchmark():
    items = [*vsp.plan_items(SAMPLE), *vsp.check_items(SAMPLE)]
    assert len(items) == 110
    for item in items:
        drawn = view.render(board.state_of(item.meta["map"]), "sprites")
        assert np.array_equal(np.asarray(drawn), np.asarray(item.images[0])), item.id


@needs_sample
def test_the_benchmark_reads_as_items():
    items = list(vsp.plan_items(SAMPLE, levels=(3, 8)))
    assert [i.level for i in items] == [3] * 15 + [8] * 15 and {i.split for i in items} == {"test"}
    task = tasks.make("frozenlake_plan", split="test")
    for item in items:
        words = (SAMPLE / f"maps/level{item.level}/pure_text/{item.index}.txt").read_text()
        assert board.to_words(item.meta["map"]) == words and board.from_words(words) == tuple(item.meta["map"])
        assert task.check(task.trace(item).assistant_text(), item.meta).ok
    assert {i.answer for i in vsp.check_items(SAMPLE, levels=(9,))} == {"Yes", "No"}


def test_a_missing_benchmark_names_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"maze/task-main with maps/level\{3..8\}"):
        list(vsp.plan_items(tmp_path))
    (tmp_path / "maze/task-main/maps/level3/pure_text").mkdir(parents=True)
    (tmp_path / "maze/task-main/maps/level3/pure_text/0.txt").write_text(board.to_words(["SFF", "FHF", "FFG"]))
    with pytest.raises(FileNotFoundError, match=r"img.0\.png is missing"):
        list(vsp.plan_items(tmp_path, levels=[3]))


@pytest.mark.parametrize("skin", SKINS)
@pytest.mark.parametrize("n", [3, 6, 8])
def test_pictures_read_back(skin, n):
    """Exact at native size; by size and noise the share that reads right, counting whole boards."""
    noise = np.random.default_rng(0)
    wrong = dict.fromkeys(["native", "224", "168", "224 and back", "112", "noise", "half and blurred"], 0)
    count = 40
    for state in states(n, count):
        picture = view.render(state, skin)
        small = {size: picture.resize((size, size), Image.Resampling.BICUBIC) for size in (224, 168, 112)}
        grains = np.asarray(picture, float) + noise.normal(0, 8, (64 * n, 64 * n, 3))
        blurred = picture.resize((32 * n, 32 * n)).filter(ImageFilter.GaussianBlur(2)).resize(picture.size)
        for name, image in (
            ("native", picture),
            ("224", small[224]),
            ("168", small[168]),
            ("112", small[112]),
            ("224 and back", small[224].resize(picture.size)),
            ("half and blurred", blurred),
            ("noise", Image.fromarray(grains.clip(0, 255).astype(np.uint8))),
        ):
            parsed = view.parse(image, state["map"], skin)
            wrong[name] += not (parsed.valid and board.same(parsed.state, state))
            if name == "native":  # a fallen elf faces no way
                assert parsed.confidence > 0.99
                assert parsed.state == state or board.cell_at(state["map"], state["elf"]) == "H"
    assert wrong["112"] <= 1 and wrong["half and blurred"] <= 1, wrong
    assert not any(count for name, count in wrong.items() if name not in ("112", "half and blurred")), wrong


@pytest.mark.parametrize("skin", SKINS)
def test_what_is_no_board_is_told(skin):
    state = board.state_of(["SFF", "FHF", "FFG"])
    blank = view.parse(Image.new("RGB", (96, 96), (128, 128, 128)), state["map"], skin)
    assert blank.state is None and not blank.valid and blank.faults
    grains = np.random.default_rng(0).integers(0, 256, (192, 192, 3), dtype=np.uint8)
    assert not view.parse(Image.fromarray(grains), state["map"], skin).valid
    other = view.parse(view.render(board.state_of(["SFF", "FFF", "FFG"]), skin), state["map"], skin)
    assert other.state["map"] == ["SFF", "FFF", "FFG"] and other.faults == ("cell 2 2 is F, not H",)
    two = np.asarray(view.render(state, skin)).copy()
    two[128:, :64] = two[:64, :64]
    assert "2 cells show the elf" in view.parse(Image.fromarray(two), state["map"], skin).faults


def test_skins(monkeypatch):
    for version, said in (("1.0.0", "gymnasium 1.0.0 has other sprites"), (None, "gymnasium is not installed")):

        def distribution(name, version=version):
            if version is None:
                raise view.metadata.PackageNotFoundError(name)
            return type("Package", (), {"version": version})

        view._sprites.cache_clear()
        monkeypatch.setattr(view.metadata, "distribution", distribution)
        assert view.skin_of("auto") == "drawn"
        with pytest.raises(view.SpritesMissing, match=rf"{said}.*pip install --no-deps gymnasium==0\.29\.1"):
            tasks.make("frozenlake_plan", skin="sprites")
    monkeypatch.undo()
    view._sprites.cache_clear()
    with pytest.raises(ValueError, match="unknown skin"):
        view.skin_of("sprite")
