"""Chats of baselines as one self-contained HTML page: what the model wrote, what a tool gave back, and whether it is right."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from latent_reason.trace import Image, Message, Text
from latent_reason.visualization.answer_page import ANSWER_STYLE, PAGE_STYLE, data_url

from .episodes import Episode

STYLE = """
.turn{border-left:4px solid #0072B2;padding:.1rem 0 .1rem .8rem;margin:.5rem 0}.turn.shown{border-color:#bbb}
.turn b{font-size:.8rem;color:#555;display:block}
"""


def write_chats(chats: Sequence[tuple[Episode, dict, str]], title: str) -> str:
    """Episodes, what is kept of them, and their gold answers, under each other. All text is escaped."""
    body = "<hr>".join(_write_chat(*chat) for chat in chats)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{PAGE_STYLE}{ANSWER_STYLE}{STYLE}</style><h1>{escape(title)}</h1>{body}"
        "</html>\n"
    )


def _write_chat(episode: Episode, kept: dict, gold: str) -> str:
    turns = "".join(_write_turn(message, first=n == 0) for n, message in enumerate(episode.chat.messages))
    right = next(iter(kept["scores"].values())) == 1
    mark = "<p class=right>✓ right</p>" if right else "<p class=wrong>✗ wrong</p>"
    cost = f"{episode.turns} turns, {episode.tokens} tokens, {episode.latents} latents, {episode.pictures} pictures encoded"
    why = "" if episode.ended == "answer" else f", cut off: {'budget' if episode.ended == 'tokens' else 'no room left'}"
    return f"<div class=answer>{turns}{mark}<p class=quiet>gold answer: {escape(gold)} · {cost}{why}</p></div>"


def _write_turn(message: Message, first: bool) -> str:
    is_model = message.role == "assistant"
    text = "".join(part.text for part in message.content if isinstance(part, Text))
    pictures = "".join(
        f"<figure><img alt='picture of this turn' src='{data_url(part.image)}'></figure>"
        for part in message.content
        if isinstance(part, Image)
    )
    who = "model" if is_model else "question" if first else "shown to the model"
    shown = f"<div class=row>{pictures}</div>" if pictures else ""
    words = f"<p class=text>{escape(text.strip())}</p>" if text.strip() else ""
    return f"<div class='turn{'' if is_model else ' shown'}'><b>{who}</b>{shown}{words}</div>"
