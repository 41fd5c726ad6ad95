"""Prompt layout as a chat template: messages with images and sketches to text, as tokenization.py defines it, and back.

An image is one placeholder between its marks. A sketch has as many placeholders as its part says (``k``; 1 if it says
none). Only a model knows how many positions they really take.
"""

from __future__ import annotations

import re

from ...model.tokenization import ControlTokens, Layout

TEMPLATE = """{{%- set roles = {roles} -%}}
{{{{- {begin} -}}}}
{system}{{%- for message in messages -%}}
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


SYSTEM = """{{%- if messages[0]['role'] != 'system' -%}}
{{{{- {turn} -}}}}
{{%- endif -%}}
"""


def chat_template(layout: Layout, tokens: ControlTokens, system_prompt: str = "") -> str:
    """The Jinja template of a layout and its control tokens. Chats without a system turn get ``system_prompt``."""
    before, _, after = layout.turn.partition("{role}")
    turn = layout.header("system") + system_prompt + layout.end + layout.after
    return TEMPLATE.format(
        system=SYSTEM.format(turn=repr(turn)) if system_prompt else "",
        roles=repr(layout.roles),
        begin=repr(layout.begin),
        turn=f"{before!r} + role + {after!r}",
        image=repr(layout.image_open + layout.image + layout.image_close),
        end=repr(layout.end + layout.after),
        open=repr(tokens.open),
        latent=repr(tokens.latent),
        close=repr(tokens.close),
    )


def parse(text: str, layout: Layout, tokens: ControlTokens) -> list[dict]:
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
        messages.append({"role": ours.get(found[1], found[1]), "content": parts(found[2], layout, tokens)})
        place = found.end()
    return messages


def parts(text: str, layout: Layout, tokens: ControlTokens) -> list[dict]:
    """The parts of one turn."""
    picture = re.escape(layout.image_open + layout.image + layout.image_close)
    sketch = f"{re.escape(tokens.open)}(?:{re.escape(tokens.latent)})+{re.escape(tokens.close)}"
    found: list[dict] = []
    for piece in re.split(f"({picture}|{sketch})", text):
        if re.fullmatch(picture, piece):
            found.append({"type": "image"})
        elif re.fullmatch(sketch, piece):
            found.append({"type": "sketch", "k": piece.count(tokens.latent)})
        elif piece:
            found.append({"type": "text", "text": piece})
    return found
