"""Prompt layout as a chat template: messages with pictures and sketches to text, as tokens.py lays them out, and back.

A picture is one placeholder between its marks, and a sketch is as many as its part says (``k``; 1 where it says none):
how many positions they really take is known to a model only.
"""

from __future__ import annotations

import re

from ...model.tokenization import Layout, Roles

TEMPLATE = """{{%- set roles = {roles} -%}}
{{{{- {begin} -}}}}
{{%- for message in messages -%}}
{{%- set role = roles.get(message['role'], message['role']) -%}}
{{{{- {turn} -}}}}
{{%- if message['content'] is string -%}}
{{{{- message['content'] -}}}}
{{%- else -%}}
{{%- for part in message['content'] -%}}
{{%- if part['type'] == 'image' -%}}
{{{{- {image} -}}}}
{{%- elif part['type'] == 'sketch' -%}}
{{{{- {open} + {latent} * (part['k'] or 1) + {close} -}}}}
{{%- else -%}}
{{{{- part['text'] -}}}}
{{%- endif -%}}
{{%- endfor -%}}
{{%- endif -%}}
{{{{- {end} -}}}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}
{{%- set role = roles.get('assistant', 'assistant') -%}}
{{{{- {turn} -}}}}
{{%- endif -%}}
"""


def template(layout: Layout, roles: Roles) -> str:
    """The Jinja template of a layout and its control tokens."""
    before, _, after = layout.turn.partition("{role}")
    return TEMPLATE.format(
        roles=repr(layout.roles),
        begin=repr(layout.begin),
        turn=f"{before!r} + role + {after!r}",
        image=repr(layout.image_open + layout.image + layout.image_close),
        end=repr(layout.end + layout.after),
        open=repr(roles.open),
        latent=repr(roles.latent),
        close=repr(roles.close),
    )


def parse(text: str, layout: Layout, roles: Roles) -> list[dict]:
    """Rendered text back to messages whose content is parts of type text, image and sketch (``k``).

    Raises:
        ValueError: text that no template of this layout renders.
    """
    if not text.startswith(layout.begin):
        raise ValueError(f"the text does not begin with {layout.begin!r}")
    ours, messages = {theirs: ours for ours, theirs in layout.roles.items() if ours != "system"}, []
    before, _, after = layout.turn.partition("{role}")
    turn = re.compile(
        f"{re.escape(before)}(\\w+){re.escape(after)}(.*?){re.escape(layout.end + layout.after)}", re.DOTALL
    )
    place = len(layout.begin)
    while place < len(text):
        found = turn.match(text, place)
        if found is None:
            raise ValueError(f"there is no turn where the text says {text[place : place + 40]!r}")
        messages.append({"role": ours.get(found[1], found[1]), "content": parts(found[2], layout, roles)})
        place = found.end()
    return messages


def parts(text: str, layout: Layout, roles: Roles) -> list[dict]:
    """The parts of one turn."""
    picture = re.escape(layout.image_open + layout.image + layout.image_close)
    sketch = f"{re.escape(roles.open)}(?:{re.escape(roles.latent)})+{re.escape(roles.close)}"
    found = []
    for piece in re.split(f"({picture}|{sketch})", text):
        if re.fullmatch(picture, piece):
            found.append({"type": "image"})
        elif re.fullmatch(sketch, piece):
            found.append({"type": "sketch", "k": piece.count(roles.latent)})
        elif piece:
            found.append({"type": "text", "text": piece})
    return found
