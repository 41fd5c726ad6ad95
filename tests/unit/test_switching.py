"""When a span opens and closes: the state machine of the switch."""

import pytest
import torch

from latent_reason.model.switching import DONE, DRAWING, WRITING, Switch, SwitchState


def flags(**rows):
    """Keyword arguments of SwitchState.update for one row, those not named being false."""
    names = ("opened", "drew", "closed", "wrote", "ended")
    return {n: torch.tensor([n in rows]) for n in names}


def state(stop="count", plan=2, **options):
    supervise = "none" if stop == "count" else "full"
    return SwitchState(Switch(stop=stop, supervise=supervise, **options), torch.tensor([plan]))


def test_a_counted_span_closes_after_its_plan_and_not_before():
    s = state(plan=2)
    s.update(**flags(opened=1))
    assert s.mode == DRAWING and not s.must_close()
    s.update(**flags(drew=1))
    assert not s.must_close() and not s.may_close()
    s.update(**flags(drew=1))
    assert s.must_close()
    s.update(**flags(closed=1))
    assert s.mode == WRITING and s.spans == 1 and not s.must_close()


def test_a_learned_stop_counts_between_the_least_and_the_cap():
    s = state("close", plan=2, min_latents=1, cap=1.5)
    s.update(**flags(opened=1))
    seen = []
    for _ in range(4):
        seen.append((bool(s.may_close()), bool(s.must_close())))
        s.update(**flags(drew=1))
    assert seen == [(False, False), (True, False), (True, False), (False, True)]


def test_a_span_needs_words_before_it_and_there_are_only_so_many():
    s = state(max_spans=2)
    assert s.may_open()
    for _ in range(2):
        s.update(**flags(opened=1))
        s.update(**flags(closed=1))
        assert not s.may_open(), "nothing was written since"
        last = s.spans == 2
        s.update(**flags(wrote=1))
        assert s.may_open() == ~last
    s.update(**flags(ended=1))
    assert s.mode == DONE


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stop": "never"}, "stop='never': must be 'count', 'close' or 'distance'"),
        ({"supervise": "some"}, "'end_only' or 'full'"),
        ({"stop": "close"}, "stop='close' needs supervise='end_only' or 'full'"),
    ],
)
def test_switches_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Switch(**options)
