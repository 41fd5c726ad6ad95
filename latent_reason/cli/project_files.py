"""The files of a starter folder: recipes, scripts and a README for records of one's own."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

SETTINGS = """\
# Read by the other scripts: they run in this folder, with train/ and eval/ of a clone of latent_reason.
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
export PYTHONPATH="${{LATENT_REASON_CLONE:-{clone}}}${{PYTHONPATH:+:$PYTHONPATH}}"
mkdir -p results
"""

SKETCH = """\
# python -m train.sft --config sketch.yaml
# Reasoning in text and sketches, from a published tiny model that runs on a CPU.
run_name: sketch
seed: 0
init_from: {start_in_yaml}
backbone: {{latent_positions: 2d}}
method:
  name: modal_mixed
  options: {{k: 36, head: flow, head_options: {{residual: true, hidden: 128, depth: 2}}, scheduled_sampling: {{noise_std: 0.1}}}}
trainable: [text_model, embeddings, head]
data: {{folder: {data_in_yaml}}}
optim: {{name: muon, max_steps: 300, lr: 5.0e-3, adamw_lr: 2.0e-3}}
eval_steps: 100

# LoRA on a stock model, on one GPU of 16 GB: remove init_from, and put these lines in place of those above.
#   backbone: {{name: Qwen/Qwen2.5-VL-3B-Instruct, gradient_checkpointing: true, options: {{dtype: bfloat16}}}}
#   lora: {{rank: 16, alpha: 32}}
#   trainable: [lora, head]
#   optim: {{name: adamw, max_steps: 1000, lr: 2.0e-4, weight_decay: 0.0, warmup_steps: 50}}
"""

TEXT_COT = """\
# python -m train.sft --config text_cot.yaml
# The control: the same records without their sketches, from the same start, with the same steps.
run_name: text-cot
seed: 0
init_from: {start_in_yaml}
backbone: {{latent_positions: 2d}}
method: {{name: text_cot}}
trainable: [text_model, embeddings]
data: {{folder: data-text}}
optim: {{name: muon, max_steps: 300, lr: 5.0e-3, adamw_lr: 2.0e-3}}
eval_steps: 100
"""

DECODER = """\
# python -m train.decoder --config decoder.yaml
# The sketch decoder, trained to render pictures like yours. The model stays as it is.
run_name: drawn
seed: 0
init_from: checkpoints/sketch
data: {{folder: {data_in_yaml}}}
optim: {{name: muon, max_steps: 300, lr: 5.0e-3, adamw_lr: 2.0e-3}}
"""

SCRIPTS = {
    "check.sh": """\
# Every error in the records, and how many there are of each kind.
{settings}
python -m latent_reason data check {data} --method modal_mixed
python -m latent_reason data stats {data}
python -m latent_reason data show {data} results/records.png --overwrite
""",
    "train.sh": """\
# Train; continue a run that was stopped.
{settings}
python -m train.sft --config sketch.yaml --resume auto
""",
    "probe.sh": """\
# Do the latents matter? Answers with the model's own latents, with noise, and with those of other records.
{settings}
python -m eval.probe checkpoints/sketch --folder {data} --out results/probe.json
""",
    "text_cot.sh": """\
# The same records without sketches, and a model that is trained on them.
{settings}
test -d data-text || python -m latent_reason data convert native {data} data-text --mode text
python -m train.sft --config text_cot.yaml --resume auto
""",
    "compare.sh": """\
# Answers of both models to the same test records, compared record by record.
{settings}
python -m eval.answers checkpoints/sketch {data} --out results/sketch.json
python -m eval.answers checkpoints/text-cot {data} --out results/text-cot.json
python -m eval.compare results/text-cot.json results/sketch.json --table results/compared.md
""",
    "decoder.sh": """\
# The decoder that renders sketches as pictures: before, it has seen boards of a frozen lake only.
{settings}
python -m train.decoder --config decoder.yaml --resume auto
""",
    "ask.sh": """\
# bash ask.sh PICTURE "QUESTION": the answer with its sketches, as a page.
picture="$(realpath "${{1:?usage: bash ask.sh PICTURE QUESTION}}")"
{settings}
python -m latent_reason ask checkpoints/drawn --image "$picture" --question "$2" --out results/answer.html --overwrite
""",
    "demo.sh": """\
# A page in the browser to ask the model, with its latents on, off or replaced. Needs the extra `demo`.
{settings}
python -m latent_reason demo checkpoints/drawn
""",
    "export.sh": """\
# A folder that transformers loads, and the checks of it.
{settings}
python -m latent_reason export checkpoints/drawn export --check
""",
}

README = """\
# {name}

A model of your own that reasons in text and sketches. Run the scripts in this order, with the Python of latent_reason:

| script | what it does | time |
|---|---|---|
| `bash check.sh` | lists every error in the records, counts them, draws some to `results/records.png` | seconds |
| `bash train.sh` | trains `sketch.yaml` to `checkpoints/sketch` | minutes |
| `bash probe.sh` | replaces the latents and measures what the answers lose: `results/probe.json` | half a minute |
| `bash text_cot.sh` | the control: trains `text_cot.yaml` on the same records without sketches | minutes |
| `bash compare.sh` | accuracy of both on the test records, and their difference: `results/compared.md` | a minute |
| `bash decoder.sh` | trains the decoder that renders sketches, `decoder.yaml`, to `checkpoints/drawn` | minutes |
| `bash ask.sh PICTURE "QUESTION"` | one answer with its sketches: `results/answer.html` | seconds |
| `bash demo.sh` | a page in the browser to ask the model | until Ctrl-C |
| `bash export.sh` | a folder that transformers loads: `export` | half a minute |

The times are those of 480 pictures of 128 x 128 and the tiny model on two CPU cores. A stock model with LoRA needs a GPU: see the
end of `sketch.yaml`.

The records are in `{folder}`. `latent-reason data convert` makes such a folder from the formats of others, and
`latent-reason data check` says what is wrong in it. To use other records, change `data.folder` in the recipes and the folder in
the scripts.

A result file is not replaced: remove it, or add `--overwrite`. `train.sh` continues a run that was stopped; to train again, set
another `run_name`.
"""


def project_files(name: str, data: str, clone: Path) -> dict[str, str]:
    """File name -> text. ``data`` is the folder of records as the scripts see it, ``clone`` a clone of latent_reason."""
    given = {
        "name": name,
        "folder": data,
        "data": shlex.quote(data),
        "data_in_yaml": json.dumps(data),
        "start_in_yaml": json.dumps(str(clone / "checkpoints" / "frozenlake-tiny")),
        "clone": clone,
        "settings": 'source "$(dirname "$0")/settings.sh"',
    }
    recipes = {"sketch.yaml": SKETCH, "text_cot.yaml": TEXT_COT, "decoder.yaml": DECODER}
    files = {"README.md": README, "settings.sh": SETTINGS, **recipes, **SCRIPTS}
    return {file: text.format(**given) for file, text in files.items()}
