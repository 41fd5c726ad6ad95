"""The ten checks an exported folder has to pass before anybody is asked to load it.

A check whose ground another has taken away is not run: one damage is told once. Nothing of the folder is run: its code is
compared with what this version generates for it, and its weights are loaded with the classes of this library. Only with
``run_code`` its own code and its snippet run, too, in another process (isolated_check.py), which is no sandbox.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from ... import checkpoint
from ...model import adapters
from ..hf import parity
from . import content_checks, isolated_check, tensors
from .exporter import write_adapter
from .finding import Finding


@dataclass
class Result:
    """``state`` is passed, failed, not run (because of others) or left out (there is nothing of the kind to check)."""

    number: int
    title: str
    state: str
    findings: list[Finding] = field(default_factory=list)
    because: str = ""

    def lines(self) -> list[str]:
        mark = self.state.upper() if self.state == "failed" else self.state
        return [
            f"{self.number:2} {mark:8} {self.title}" + f" ({self.because})" * bool(self.because),
            *(f"      {finding}" for finding in self.findings),
        ]


class Case:
    """An exported folder under test. What takes time is done once, when it is first asked for."""

    def __init__(self, folder: str | Path, run_code: bool = False):
        self.folder, self.run_code = Path(folder), run_code
        self.card = checkpoint.read_config(self.folder, check_files=False)
        self.adapter = self.card.get("layout") == "adapter"

    @cached_property
    def stranger(self) -> dict | None:
        """What a fresh process says that runs the folder's own code; None where that may not be run."""
        return isolated_check.ask([self.folder])[0] if self.run_code else None

    @cached_property
    def model(self):
        """The model, loaded by this library; (model, keys that do not fit)."""
        from ...model.backbones import no_progress_bars
        from ..hf.auto_model import LatentReasonForConditionalGeneration

        if self.adapter:
            return LatentReasonForConditionalGeneration.from_reasoner(*checkpoint.load(self.folder, device="cpu")), []
        with no_progress_bars():
            model, info = LatentReasonForConditionalGeneration.from_pretrained(
                self.folder, output_loading_info=True, use_safetensors=True
            )
        return model, [
            f"{key} ({kind.removesuffix('_keys')})"
            for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
            for key in sorted(info[kind])
        ]

    @property
    def bound(self) -> float:
        """How far answers may be off, of the precision of the weights."""
        return parity.BOUNDS.get(self.card.get("dtype", ""), 1e-4)

    def read(self, name: str) -> dict:
        """A JSON file. Raises ValueError where it is none."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


# -- the checks --------------------------------------------------------------------------------------------------------
def loads(case: Case) -> Iterator[Finding]:
    """It loads with the classes of this library, offline: every weight is there and fits."""
    weights = "adapter_model.safetensors" if case.adapter else "model.safetensors"
    try:
        keys = case.model[1]
    except Exception as error:  # libraries raise anything for a damaged file
        yield Finding("config.json" if not case.adapter else weights, isolated_check.said(error), "a model that loads")
        return
    if keys:
        yield Finding(weights, f"{len(keys)} weights that do not fit: {', '.join(keys[:3])}", "none")


def weights(case: Case) -> Iterator[Finding]:
    """Files of weights are whole: as the index says, nothing twice, finite, of the precision declared."""
    return tensors.wrong(case.folder, case.card)


def answers(case: Case) -> Iterator[Finding]:
    """Logits and one sketch are those stored in probe.safetensors."""
    try:
        off = case.model[0].parity(case.folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        yield Finding(parity.FILE, isolated_check.said(error), "a stored batch that can be read")
        return
    told = {"by the library": off} | ({"by its own code": case.stranger["off"]} if case.stranger else {})
    for who, far in told.items():
        for name, value in far.items():
            if not value <= case.bound:
                yield Finding(
                    parity.FILE,
                    f"{name} off by {value:.2g} {who}",
                    f"at most {case.bound:g}",
                    "Export again, with the versions of README.md: weights, code or versions have changed.",
                )
    if case.stranger and case.stranger["probe"]:
        yield Finding(parity.FILE, case.stranger["probe"], "a stored batch that its own code can read")


def words(case: Case) -> Iterator[Finding]:
    """Control tokens, table and chat template fit together: a rendered sketch reads back as it was."""
    return content_checks.check_tokenizer(case.folder, case.card)


def settings(case: Case) -> Iterator[Finding]:
    """generation_config.json names the end and the padding, and no length."""
    name = "generation_config.json"
    try:
        given = case.read(name)
    except (OSError, ValueError) as error:
        yield Finding(name, isolated_check.said(error), "JSON")
        return
    for key in ("eos_token_id", "pad_token_id"):
        if not isinstance(given.get(key), int):
            yield Finding(name, f"{key} {given.get(key)!r}", "a token id")
    if given.get("max_length") is not None:
        yield Finding(name, f"max_length {given['max_length']}", "none: it would cut answers off", "Remove the line.")


def code(case: Case) -> Iterator[Finding]:
    """Code and requirements are, byte for byte, what this version generates for the model; nothing else names code."""
    yield from content_checks.check_code(case.folder, case.card, case.model[0].reasoner)
    if case.stranger and case.stranger["loading"]:
        yield Finding("modeling_latent_reason.py", case.stranger["loading"], "a model that AutoModel loads")
    elif case.stranger and case.stranger["keys"]:
        keys = ", ".join(case.stranger["keys"][:3])
        yield Finding("modeling_latent_reason.py", f"weights that do not fit: {keys}", "none")


def readme(case: Case) -> Iterator[Finding]:
    """README.md has a head that is filled in, and the snippet that this version writes (with --run-code, it runs)."""
    yield from content_checks.check_readme(case.folder, case.card)
    if case.stranger and case.stranger["snippet"]:
        yield Finding(
            "README.md",
            f"a snippet that ends with {case.stranger['snippet']}",
            "one that runs as written",
            "Correct the snippet.",
        )


def belongings(case: Case) -> Iterator[Finding]:
    """Nothing is in the folder that does not belong there: no path, secret, pickle, optimiser state or stray file."""
    return content_checks.check_files(case.folder)


def same_bytes(case: Case) -> Iterator[Finding]:
    """Loaded and saved again, every file is the same to the last byte."""
    with tempfile.TemporaryDirectory() as place:
        again, model = Path(place), case.model[0]
        if case.adapter:
            write_adapter(model, again, case.folder)
        else:
            from ...model.backbones import no_progress_bars

            with no_progress_bars():
                model.save_pretrained(again, max_shard_size=case.card.get("max_shard_size", "5GB"))
        for file in sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file()):
            if not (case.folder / file).is_file():
                yield Finding(file.as_posix(), "no such file", "one, as saving writes it")
            elif content(case.folder / file) != content(again / file):
                yield Finding(file.as_posix(), "other bytes than loading and saving gives", "the same")


def content(file: Path) -> bytes:
    """The bytes of a file, but for the version of transformers that wrote it."""
    return re.sub(rb'"transformers_version": "[^"]*"', b"", file.read_bytes())


def adapter(case: Case) -> Iterator[Finding]:
    """The adapter on its base says what it says when it is folded in."""
    model, (stored, seed) = case.model[0], parity.read(case.folder)
    given = {name: stored[name] for name in ("input_ids", "pixel_values", "image_grid")}
    alone = parity.outputs(model, given, seed)["logits"]
    adapters.merge(model.reasoner)  # nothing comes after this check
    merged = parity.outputs(model, given, seed)["logits"]
    for who, off in (
        ("now", parity.difference(merged, alone)),
        ("at its export", parity.difference(alone, stored.get("merged"))),
    ):
        if not off <= case.bound:
            yield Finding(
                "adapter_model.safetensors",
                f"logits off by {off:.2g} from those merged {who}",
                f"at most {case.bound:g}",
                "Export it on the base it was trained on, or with --merge-lora.",
            )


#: number -> the check, and those without which it says nothing new
CHECKS: dict[int, tuple[Callable[[Case], Iterator[Finding]], set[int]]] = {
    1: (loads, {2, 4, 5}),
    2: (weights, set()),
    3: (answers, {1, 2, 4, 5, 6}),
    4: (words, set()),
    5: (settings, set()),
    6: (code, {1, 2, 4, 5}),
    7: (readme, {1, 2, 4, 5, 6}),
    8: (belongings, set()),
    9: (same_bytes, {1, 2, 4, 5, 6}),
    10: (adapter, {1, 2, 4, 5, 6}),
}
ORDER = (2, 4, 5, 8, 1, 6, 3, 7, 9, 10)  # what runs code, with run_code, after 8 and 1


def check(folder: str | Path, run_code: bool = False) -> list[Result]:
    """All ten results of an exported folder, by number. ``run_code`` runs the folder's own code and its snippet, too.

    Raises:
        FileNotFoundError, ValueError: it is no exported checkpoint.
    """
    case = Case(folder, run_code)
    results: dict[int, Result] = {}
    if not case.card.get("layout"):
        raise ValueError(
            f"'{folder}' is a checkpoint that was not exported. Export it: python -m latent_reason export "
            f"'{folder}' DIR"
        )
    for number in ORDER:
        run, needs = CHECKS[number]
        title = run.__doc__.strip().rstrip(".")
        failed = sorted(n for n in needs if n in results and results[n].state == "failed")
        if number == 10 and (not case.adapter or case.card.get("bits")):
            why = "its base is rounded, and takes no adapter up" if case.adapter else "there is no adapter"
            results[number] = Result(number, title, "left out", because=why)
        elif failed:
            results[number] = Result(number, title, "not run", because=f"check {failed[0]} failed")
        else:
            found = findings_of(run, case)
            results[number] = Result(number, title, "failed" if found else "passed", found)
    return [results[number] for number in sorted(results)]


def findings_of(run: Callable[[Case], Iterator[Finding]], case: Case) -> list[Finding]:
    """What a check finds. An error of a library, or of this one, over a damaged file is a finding, too."""
    try:
        return list(run(case))
    except Exception as error:
        return [Finding(case.folder.name, isolated_check.said(error), "a folder that can be checked")]


def report(results: list[Result]) -> dict:
    """The results as JSON."""
    return {"ok": passed(results), "checks": [asdict(result) for result in results]}


def passed(results: list[Result]) -> bool:
    return all(result.state != "failed" for result in results)
