"""A task of lmms-eval out of one of ours: a parquet file, its YAML and its Python, in a folder for ``--include_path``.

    python tests/lmms_task.py checkpoints/frozenlake-tiny DIR --levels 7 --n 48

The items are those of ``python -m eval.run`` with the same checkpoint, levels and n, and seed 1.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

from latent_reason import checkpoint, tasks
from latent_reason.decoding.items import distinct_items
from latent_reason.errors import at_least, cli_errors, numbers

YAML = """\
task: frozenlake_local
dataset_path: parquet
dataset_kwargs:
  data_files: {{test: {file}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.pictures
doc_to_text: !function utils.question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: {max_new}, do_sample: false}}
process_results: !function utils.graded
metric_list:
  - {{metric: success, aggregation: mean, higher_is_better: true}}
"""
CODE = """\
import json

from latent_reason import tasks

TASK = tasks.make("frozenlake_plan")


def pictures(doc):
    return [doc["image"]]


def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def graded(doc, results):
    return {"success": TASK.score(results[0], json.loads(doc["meta"]))["success"]}
"""


def items(folder: str | Path, levels: list[int], n: int) -> list:
    options = tasks.own("frozenlake_plan", checkpoint.read_config(folder)["notes"]["data"]["options"])
    return [
        item
        for level in levels
        for item in distinct_items(tasks.make("frozenlake_plan", split="test", seed=1, level=level, **options), n)
    ]


def write(folder: Path, found: list, max_new: int = 640) -> Path:
    """The task of these items, in a folder that is made."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = []
    for item in found:
        file = io.BytesIO()
        item.images[0].save(file, "PNG")
        rows.append(
            {
                "id": item.id,
                "question": item.question,
                "answer": item.answer,
                "meta": json.dumps(item.meta),
                "image": {"bytes": file.getvalue(), "path": None},
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [(name, pa.string()) for name in ("id", "question", "answer", "meta")] + [("image", image)],
        metadata={
            "huggingface": json.dumps(
                {
                    "info": {
                        "features": {
                            **{
                                name: {"dtype": "string", "_type": "Value"}
                                for name in ("id", "question", "answer", "meta")
                            },
                            "image": {"_type": "Image"},
                        }
                    }
                }
            )
        },
    )
    parquet.write_table(pa.Table.from_pylist(rows, schema), folder / "boards.parquet")
    (folder / "frozenlake_local.yaml").write_text(
        YAML.format(file=(folder / "boards.parquet").resolve(), max_new=max_new)
    )
    (folder / "utils.py").write_text(CODE)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--levels", type=numbers, default=[7])
    parser.add_argument("--n", type=at_least(1), default=48, help="items a level")
    given = parser.parse_args()
    with cli_errors():
        write(given.folder, items(given.checkpoint, given.levels, given.n))
