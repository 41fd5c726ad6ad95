"""ShareGPT as used by LLaMA-Factory and ms-swift: a chat of plain texts with ``images`` at ``<image>``.

Rows have ``messages`` of role and content, or ``conversations`` of from and value. Set other names with ``columns`` and
``tags``, as in ``dataset_info.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from ...errors import did_you_mean
from ...trace import Trace
from .. import chats, reading, writing
from ..chats import Names
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..writing import Target

REQUIRED = {"messages"}
COLUMNS = ("messages", "images", "system")
TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag")


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    assistant_image: str = "refuse",
    unplaced_image: str = "first",
    columns: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. ``assistant_image``: meaning of ``<image>`` in an answer, sketch or refuse.

    ``unplaced_image``: what happens to images without any ``<image>`` (first, drop or refuse). ``columns`` renames
    messages, images and system; ``tags`` renames role_tag, content_tag, user_tag, assistant_tag and system_tag. Errors:
    E06 ``<image>`` in an answer, videos or audio; E10 numbers of signs and images differ; E19 order of turns, or tool
    turns.
    """
    chats.check_options(unplaced_image, assistant_image)
    for option, named, known in (("columns", columns, COLUMNS), ("tags", tags, TAGS)):
        for name in named or ():
            if name not in known:
                raise ValueError(f"--{option}: there is no '{name}'. {did_you_mean(name, known)}")
    convert = partial(
        trace, assistant_image=assistant_image, unplaced_image=unplaced_image, columns=columns or {}, tags=tags or {}
    )
    return reading.read(source, convert, image_root, report, limits)


def trace(
    fields: Fields, assistant_image: str, unplaced_image: str, columns: dict[str, str], tags: dict[str, str]
) -> Trace:
    """Convert one row."""
    key = columns.get("messages", fields.column("messages", "conversations"))
    names = Names(*((tags[tag],) if tag in tags else usual for tag, usual in zip(TAGS, Names(), strict=False)))
    roles = chats.ROLES | {tags[f"{role}_tag"]: role for role in chats.ROLES if f"{role}_tag" in tags}
    signs = dict.fromkeys(("system", "user", "assistant"), chats.IMAGE)
    system = columns.get("system", "system")
    turns = chats.turns(fields, chats.entries(fields, key), signs, names, roles, system)
    images = columns.get("images") or chats.image_column(fields, "images", "image")
    messages = chats.fill_from_column(fields, turns, images, unplaced_image, assistant_image)
    return reading.record(fields, "sharegpt", messages, id=fields.name("id"))


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
