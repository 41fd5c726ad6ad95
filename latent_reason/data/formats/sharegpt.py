"""ShareGPT as used by LLaMA-Factory and ms-swift: a chat of plain texts with ``images`` at ``<image>``.

Rows have ``messages`` of role and content, or ``conversations`` of from and value. Set other names with ``columns`` and
``tags``, as in ``dataset_info.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...trace import Image, Message, Part, Sketch, Text, Trace
from .. import reading, writing
from ..errors import DataError, Report
from ..pictures import Limits
from ..reading import Fields, Turn
from ..record import checked_text, loss_of
from ..writing import Target

ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}


def read(
    source: str | Path,
    image_root: str | Path | None = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    assistant_image: str = "refuse",
    columns: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. ``assistant_image``: meaning of ``<image>`` in an answer, sketch or refuse.

    ``columns`` renames messages, images and system; ``tags`` renames role_tag, content_tag, user_tag, assistant_tag and
    system_tag. Errors: E06 ``<image>`` in an answer, videos or audios; E10 numbers of signs and images differ; E19
    order of turns, or tool turns.
    """
    if assistant_image not in ("refuse", "sketch"):
        raise ValueError(f"unknown assistant_image '{assistant_image}'. Use refuse or sketch.")
    return reading.read(
        source, lambda fields: trace(fields, assistant_image, columns or {}, tags or {}), image_root, report, limits
    )


def trace(fields: Fields, assistant_image: str, columns: dict[str, str], tags: dict[str, str]) -> Trace:
    """Convert one row."""
    for key in ("videos", "audios"):
        if fields.values.get(key):
            raise DataError("E06", key, "not supported. Drop the row.")
    turns = _turns(fields, columns, tags)
    key = columns.get("images", "images")
    paths, num_signs = fields.paths(key), sum(turn.text.count("<image>") for turn in turns)
    reading.check_counts(num_signs, "<image>", "all turns", len(paths), key, turns[0].field.partition("[")[0])
    remaining = iter(enumerate(paths))
    messages = [Message(turn.role, tuple(_parts(fields, turn, key, remaining, assistant_image))) for turn in turns]
    system = fields.get(columns.get("system", "system"), str, default="")
    if system.strip() and messages[0].role != "system":
        messages.insert(0, Message("system", (Text(checked_text(system, "system")),)))
    return reading.record(fields, "sharegpt", messages, id=fields.name("id"))


def _turns(fields: Fields, columns: dict[str, str], tags: dict[str, str]) -> list[Turn]:
    key = columns.get("messages", "messages" if "messages" in fields.values else "conversations")
    uses_role = key == "messages" or "role_tag" in tags
    roles = ROLES | {tags[f"{tag}_tag"]: role for tag, role in ROLES.items() if f"{tag}_tag" in tags}
    return reading.turns(
        fields,
        key,
        tags.get("role_tag", "role" if uses_role else "from"),
        tags.get("content_tag", "content" if uses_role else "value"),
        roles,
    )


def _parts(
    fields: Fields, turn: Turn, key: str, remaining: Iterator[tuple[int, str]], assistant_image: str
) -> list[Part]:
    if turn.role == "assistant" and "<image>" in turn.text and assistant_image == "refuse":
        raise DataError("E06", turn.field, "'<image>' in an answer. Convert with --assistant-image sketch.")
    kind = Sketch if turn.role == "assistant" else Image
    pictures = (kind(fields.row.load(path, f"{key}[{i}]")) for i, path in remaining)
    parts, loss = (
        reading.insert_images(turn.text, turn.field, "<image>", pictures),
        loss_of(turn.value.get("loss"), "loss"),
    )
    return parts if loss is None else [Text(p.text, loss) if isinstance(p, Text) else p for p in parts]


def write(traces: Iterable[Trace], folder: str | Path, lossy: bool = False, report: Report | None = None) -> Path:
    """Write ``data.json`` and images to a new folder, sketches as ``<image>`` in answers. Errors: ``writing.write``."""
    return writing.write(traces, folder, "data.json", row, lossy, report)


def row(trace: Trace, target: Target) -> dict:
    turns = target.chat(trace, system=True)
    return {
        "id": trace.id,
        "messages": [{"role": message.role, "content": writing.join_parts(message)} for message in turns],
        "images": [target.add_image(part) for message in turns for part in writing.pictures(message)],
        **writing.extra_column(trace),
    }
