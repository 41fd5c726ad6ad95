"""Values of options that are wrong, absurd or hostile, in recipes and on command lines: each is one sentence that names
the key or the file, at once. ``CASES`` is the catalogue, one row a case."""

from __future__ import annotations

import argparse
import dataclasses
import typing

import pytest
from hostile.options import CASES, ODD_ARGUMENTS
from hostile.parts import PARTS
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_reason import methods, values
from latent_reason.errors import at_least, numbers
from latent_reason.model import heads
from latent_reason.values import Bounds
from train.config import CONFIGS, parse
from train.config.keys import hints_of
from train.config.parsing import parse_command_line


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_hostile_option_is_one_sentence_at_once(case, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    words, file = case.made, tmp_path / "recipe.yaml"
    if isinstance(words, str):
        words = words.split()
    elif not isinstance(words, list):
        file.write_bytes(words) if isinstance(words, bytes) else words(file)
        words = ["--config", str(file)]
    with pytest.raises(SystemExit) as ended:
        parse_command_line(case.config, "", words)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1 and len(said) < 3000
    assert all(part in said for part in case.words), said


@pytest.mark.parametrize("part", PARTS, ids=[part[0] for part in PARTS])
def test_hostile_option_of_a_part_is_one_sentence(part):
    _, make, words = part
    with pytest.raises(ValueError) as error:
        make()
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), str(error.value)


@pytest.mark.parametrize("name", methods.names())
def test_every_number_of_a_method_has_bounds_that_its_default_keeps(name):
    module = methods.load(name)
    hints = {k: v for f in (module.build_model, module.build_objective) for k, v in values.hints_of(f).items()}
    options = {option: parameter.default for option, parameter in methods.schema(name).items()}
    assert not [option for option in options if unbounded(hints[option])]
    methods.check_options(name, options)


@pytest.mark.parametrize("kind", heads.KINDS)
def test_every_number_of_a_head_has_bounds_that_its_default_keeps(kind):
    hints = values.hints_of(heads.KINDS[kind].__init__)
    assert not [name for name, hint in hints.items() if name not in ("width", "latent_width") and unbounded(hint)]
    heads.make(kind, 8, 8)


@pytest.mark.parametrize("odd", [value for value in ODD_ARGUMENTS])
@pytest.mark.parametrize("hint", [values.Seed, values.Share, values.Positive, values.Count, values.Temperature])
def test_an_argument_of_a_command_is_a_number_within_its_bounds_or_refused(hint, odd):
    try:
        value = values.argument(hint)(odd)
    except argparse.ArgumentTypeError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
    else:
        values.check(value, hint, "x")


@pytest.mark.parametrize("odd", [value for value in ODD_ARGUMENTS if value not in ("1", "0")])
def test_counts_and_levels_of_a_command_refuse_all_but_numbers(odd):
    for read in (at_least(1), numbers):
        with pytest.raises(argparse.ArgumentTypeError):
            read(odd)


# -- every number ------------------------------------------------------------------------------------------------------
def unbounded(hint) -> list:
    """The types of numbers in a type that have no bounds."""
    if typing.get_origin(hint) is typing.Annotated and any(isinstance(rule, Bounds) for rule in hint.__metadata__):
        return []
    return [hint] if hint in (int, float) else [one for inner in typing.get_args(hint) for one in unbounded(inner)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.command)
def test_every_number_has_bounds_that_its_default_keeps(config):
    hints = hints_of(config, with_bounds=True)
    assert not [key for key, hint in hints.items() if unbounded(hint)]
    config()


ODD = [
    float("nan"),
    float("inf"),
    float("-inf"),
    -1,
    0,
    1.5,
    10**30,
    10**5000,
    -(2**70),
    "many",
    "",
    True,
    None,
    [],
    {},
    b"x",
]
GROUPS = sorted(
    {hint for config in CONFIGS for hint in typing.get_type_hints(config).values() if dataclasses.is_dataclass(hint)},
    key=str,
)


@pytest.mark.parametrize("group", [*GROUPS, *CONFIGS], ids=lambda c: c.__name__)
def test_every_key_takes_an_odd_value_or_is_named(group):
    for field in dataclasses.fields(group):
        for value in ODD:
            try:
                group(**{field.name: value})
            except ValueError as error:
                sentence = str(error)
                assert field.name in sentence and "\n" not in sentence and len(sentence) < 500, sentence


KEYS = sorted((config.command, key) for config in CONFIGS for key in hints_of(config))
VALUES = (
    st.sampled_from(ODD[:-1]) | st.floats() | st.integers() | st.text(max_size=5) | st.lists(st.floats(), max_size=3)
)


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(st.sampled_from(KEYS), VALUES, st.booleans())
def test_any_value_of_any_key_is_taken_or_named(named, value, as_words):
    command, key = named
    config = next(config for config in CONFIGS if config.command == command)
    text = str(value) if not (isinstance(value, int) and abs(value) > 10**4000) else "9" * 5000
    try:
        parse(config, [f"--{key}={text}"])
    except (ValueError, FileNotFoundError) as error:  # a run to resume that is not there
        assert key.rpartition(".")[2] in str(error) and "\n" not in str(error), str(error)
