"""Every method still has the losses that are in golden_losses.json."""

from __future__ import annotations

import json

import pytest
from golden_losses import FILE, PRECISIONS, STEPS, forms, losses

WANTED = json.loads(FILE.read_text(encoding="utf-8"))
#: relative error of a loss. One step differs by about 1e-6 in fp32 and 4e-3 in bf16 between CPUs, and AdamW makes more of
#: it over twenty steps. Another seed changes these losses by 1e-3 to 5e-2, other betas by 1e-3, a latent loss that counts a
#: tenth more by 3e-2.
LIMITS = {"32-true": 5e-4, "bf16-mixed": 2e-2}
#: methods whose loss jumps in these steps, so that rounding grows faster
JUMPING = {"deepsketcher": 10}


def test_every_method_has_golden_losses():
    assert set(WANTED) == set(forms())
    assert all(len(curve) == STEPS for rows in WANTED.values() for curve in rows.values())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", WANTED)
def test_losses_are_the_golden_ones(form, precision):
    found, wanted = losses(form, precision), WANTED[form][precision]
    off = max(abs(f - w) / abs(w) for f, w in zip(found, wanted, strict=True))
    assert off < LIMITS[precision] * JUMPING.get(form, 1), (off, found)
