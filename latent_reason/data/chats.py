"""Chats of other projects: turns in any of the usual layouts become messages.

A turn has ``role`` and ``content``, or ``from`` and ``value``. Its content is a text or a list of parts: texts,
``{"type": "text", "text": ...}``, ``{"type": "image"}`` for the next image of a column, or an image of its own
(``image``, ``image_url``, ``path``, ``url``, ``value``, ``source``). Parts may lack ``type``; null values are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..trace import Image, Message, Part, Sketch, Text
from . import answers, grounding
from .errors import DataError, list_names
from .jsonl import decode
from .reading import FOREIGN_SIGN, REFERENCES, Fields, check_counts, in_order
from .record import TYPES, check_order, checked_text, loss_of

IMAGE = "<image>"
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
ROLES |= {"developer": "system", "model": "assistant"}
TOOLS = ("tool", "function", "function_call", "observation", "tool_call", "tool_response", "ipython")
WHERE = {"all turns": ("system", "user", "assistant"), "human turns": ("user",), "gpt turns": ("assistant",)}
UNPLACED = ("first", "drop", "refuse")
ASSISTANT_IMAGES = ("refuse", "sketch")
LOSSES = ("loss", "loss_scale", "loss_mask", "weight", "train", "trainable")  # names of the loss weight of a turn
UNCLEAR_LOSSES = ("mask", "masked", "mask_history")  # taught or not: projects differ
REASONING = ("reasoning_content", "reasoning")
PICTURES = (*REFERENCES, "value", "source")
OTHER_MEDIA = ("video", "audio")
PICTURE_TAG = re.compile(r"(<img>[^<>]{1,4096}</img>)")


class Names(NamedTuple):
    """Names of the two fields of a turn, by preference."""

    role: tuple[str, ...] = ("role", "from")
    content: tuple[str, ...] = ("content", "value")


class Piece(NamedTuple):
    """A piece of a turn: a text, an image of its own, or the place of an image of a column.

    The value of a place is the number that the row gives it, or None for the next image; later the image's index.
    """

    kind: str  # text | image | place
    value: Any
    field: str


class Turn(NamedTuple):
    role: str  # system | user | assistant
    pieces: list[Piece]
    field: str
    loss: float | None

    @property
    def num_places(self) -> int:
        return sum(piece.kind == "place" for piece in self.pieces)


# -- turns -------------------------------------------------------------------------------------------------------------
def entries(fields: Fields, key: str) -> list[tuple[Any, str]]:
    """(turn, field) of every turn of a column: a list, or its JSON text, as tables of text have it."""
    if isinstance(fields.values.get(key), str) and fields.values[key].startswith("["):
        turns = decode(fields.get(key, str).encode())
    else:
        turns = fields.get(key, list)
    return [(turn, f"{key}[{i}]") for i, turn in enumerate(turns)]


def turns(
    fields: Fields,
    chat: Iterable[tuple[Any, str]],
    signs: dict[str, str],
    names: Names | None = None,
    roles: dict[str, str] | None = None,
    system: str = "system",
    ends_with: str = "assistant",
) -> list[Turn]:
    """The turns of a chat that ends with an answer, or with a question if ``ends_with`` is user. ``signs``: role -> what
    stands in its texts for an image.

    The text of column ``system`` is the first turn, blank system turns are left out. Texts are those of
    ``Texts.clean``. Raises DataError: E05 wrong type, E06 unknown role, part or medium, E19 turns out of order or of
    tools, or a loss weight of the row.
    """
    names, roles, result, before, at = names or Names(), roles or ROLES, [], "nothing", ""
    refuse_media(fields)
    _refuse_weights(fields)
    texts = Texts(fields, signs)
    for turn, at in chat:
        if not isinstance(turn, dict):
            raise DataError("E05", at, f"expected an object, found {TYPES[type(turn)]}. See the format table.")
        turn = {key: value for key, value in turn.items() if value is not None}
        role = next((name for name in names.role if name in turn), names.role[0])
        before = native_role(turn.get(role), before, f"{at}.{role}", roles)
        result.append(_turn(texts, turn, before, at, names))
    result = [turn for turn in result if turn.pieces]
    if before != ends_with:
        key = at.partition("[")[0] or "conversations"
        what = "no answer turn at the end. Add the answer."
        if ends_with == "user":
            what = "does not end with a question. Use another format, such as sharegpt or trl."
        raise DataError("E19", key, what)
    result = _with_system(texts, result, system)
    texts.boxes.check_used()
    return result


def _with_system(texts: Texts, turns: list[Turn], key: str) -> list[Turn]:
    """The turns after the system turn of column ``key``, if it has one. Raises DataError (E19) for two system turns."""
    pieces = texts.pieces(texts.fields.get(key, str, default=""), key, "system")
    if not pieces:
        return turns
    if turns[0].role != "system":
        return [Turn("system", pieces, key, None), *turns]
    if [piece.value for piece in turns[0].pieces] != [piece.value for piece in pieces]:
        raise DataError("E19", key, f"differs from the system turn {turns[0].field}. Keep one of them.")
    return turns


def native_role(named: Any, before: str, field: str, roles: dict[str, str]) -> str:
    """The native role of ``named``, which follows a turn of role ``before``. Raises DataError E05, E06 or E19."""
    if not isinstance(named, str):
        raise DataError("E05", field, f"expected a string, found {TYPES[type(named)]}. See the format table.")
    if named in TOOLS:
        raise DataError("E19", field, f"'{named}' turns are not supported. Put their content into other turns.")
    named = named if named in roles else named.lower()
    if named not in roles:
        known = [role for role in roles if role not in ("developer", "model")]
        raise DataError("E06", field, f"'{named[:40]}' is no role. Use {', '.join(known)}.")
    check_order(roles[named], before, field)
    return roles[named]


def _turn(texts: Texts, turn: dict, role: str, at: str, names: Names) -> Turn:
    key = next((name for name in names.content if name in turn), names.content[0])
    field = f"{at}.{key}" if at.endswith("]") else at  # a column may be one turn
    content, pieces = turn.get(key, "" if role == "system" else None), list[Piece]()
    thought = next((turn[name] for name in REASONING if name in turn and role == "assistant"), "")
    if not isinstance(thought, str):
        raise DataError("E05", f"{at}.{REASONING[0]}", "expected a string. See the format table.")
    if thought.strip():
        pieces += texts.pieces(f"{thought.rstrip()}\n\n", at, role)
    if isinstance(content, str):
        pieces += texts.pieces(content, field, role)
    elif isinstance(content, list):
        for i, part in enumerate(content):
            piece = parse_part(part, f"{field}[{i}]")
            pieces += texts.pieces(piece.value, piece.field, role) if piece.kind == "text" else [piece]
    else:
        found = TYPES[type(content)]
        raise DataError("E05", field, f"expected a string or a list of parts, found {found}. See the format table.")
    if not pieces and role != "system":
        raise DataError("E14", field, "empty. Drop the row or fill it.")
    loss = next((name for name in LOSSES if name in turn), None)
    _check_other_keys(texts.fields, turn, {*names.role, key, *REASONING, *LOSSES}, at)
    return Turn(role, pieces, field, None if loss is None else loss_of(turn[loss], f"{at}.{loss}"))


def _check_other_keys(fields: Fields, turn: dict, used: set[str], at: str) -> None:
    other = sorted(key for key, value in turn.items() if key not in used and value not in ("", [], {}))
    for key in other:
        if key in UNCLEAR_LOSSES:
            raise DataError("E19", f"{at}.{key}", "may mean taught or not taught. Write it as 'loss': 0 or 1.")
        if key in ("images", "image", "tool_calls"):
            what = "tool calls" if key == "tool_calls" else "images of one turn"
            raise DataError("E19", f"{at}.{key}", f"{what} are not supported. Drop the row or move them.")
        refuse_medium(key, f"{at}.{key}")
    if other:
        fields.row.warn("turn keys", f"unknown keys of a turn are left out: {list_names(other)}")


class Texts:
    """Cleans and splits the texts of a row. ``signs``: role -> what stands in its texts for an image."""

    def __init__(self, fields: Fields, signs: dict[str, str] | None = None):
        self.fields, self.signs, self.boxes = fields, signs or {}, grounding.Boxes(fields)

    def pieces(self, text: str, field: str, role: str) -> list[Piece]:
        """The pieces of a text, split at the sign of an image and at ``<img>path</img>``. Blank texts are left out."""
        pieces, sign = list[Piece](), self.signs.get(role)
        for i, part in enumerate(PICTURE_TAG.split(self.clean(text, field, role))):
            if i % 2:
                pieces.append(Piece("image", part.removeprefix("<img>").removesuffix("</img>").strip(), field))
                continue
            for j, words in enumerate(part.split(sign) if sign else [part]):
                if j:
                    pieces.append(Piece("place", None, field))
                    words = words.removeprefix("\n")
                if words.strip():
                    pieces.append(Piece("text", words, field))
        return pieces

    def clean(self, text: str, field: str, role: str) -> str:
        """The text with boxes and answers in this library's form. Every reader cleans its texts here.

        Raises DataError: E05, E14 or E17 for an answer, E06 for another medium, E10 or E18 for a box.
        """
        text = self.boxes.write(text, field)
        if role == "assistant":
            return answers.box_answers(text, field)
        for medium in OTHER_MEDIA if role == "user" else ():
            if f"<{medium}>" in text:
                raise DataError("E06", field, f"{medium} is not supported. Drop the row.")
        if role == "user" and "</answer>" in text.lower():
            warning = "the question asks for <answer> tags, but answers are written as \\boxed{...}"
            self.fields.row.warn("tags", warning)
        return text


def parse_part(part: Any, at: str) -> Piece:
    """A part of a turn as one piece. Raises DataError: E05 wrong type, E06 unknown kind or medium."""
    if isinstance(part, str):
        return Piece("text", part, at)
    if not isinstance(part, dict):
        raise DataError("E05", at, f"expected an object, found {TYPES[type(part)]}. See the format table.")
    part = {key: value for key, value in part.items() if value is not None}
    kind = part.get("type", next((key for key in ("text", "image", "image_url", *OTHER_MEDIA) if key in part), None))
    if not isinstance(kind, str):
        raise DataError("E05", at + ".type", "missing, expected a string. See the format table.")
    refuse_medium(kind, at + ".type")
    if kind in ("text", "input_text", "output_text"):
        key = next((key for key in ("text", "value", "content") if key in part), "text")
        if not isinstance(part.get(key), str):
            found = TYPES[type(part[key])] if key in part else "nothing"
            raise DataError("E05", f"{at}.{key}", f"expected a string, found {found}. See the format table.")
        return Piece("text", part[key], f"{at}.{key}")
    if kind not in ("image", "image_url", "input_image"):
        raise DataError("E06", at + ".type", f"'{kind[:40]}' is no part type. Use text or image.")
    name = next((key for key in PICTURES if key in part), None)
    if name and type(part[name]) is int:
        return Piece("place", part[name], f"{at}.{name}")
    if name:
        return Piece("image", part[name], f"{at}.{name}")
    return Piece("place", part.get("index"), at + ".type")


# -- media -------------------------------------------------------------------------------------------------------------
def refuse_media(fields: Fields) -> None:
    """Raises DataError (E06) for a row with videos or audio."""
    for key in fields.values:
        if fields.values[key]:
            refuse_medium(key, key)


def refuse_medium(name: str, field: str) -> None:
    """Raises DataError (E06) if ``name`` is a column or a kind of part for videos or audio."""
    for medium in OTHER_MEDIA:
        if name in (medium, f"{medium}s", f"{medium}_url", f"input_{medium}", f"{medium}_path"):
            raise DataError("E06", field, f"{medium} is not supported. Drop the row.")


def _refuse_weights(fields: Fields) -> None:
    """Raises DataError (E19) for a loss weight of the whole row that is not 1."""
    for key in (*LOSSES, *UNCLEAR_LOSSES):
        value = fields.values.get(key)
        weights = value if isinstance(value, list) else [value]
        neutral = not value if key in UNCLEAR_LOSSES else all(weight == 1 for weight in weights)
        if not neutral and all(isinstance(weight, int | float) for weight in weights):
            what = "a loss weight of the row. Drop the column, or give each turn a 'loss' of its own."
            raise DataError("E19", key, what)


# -- images ------------------------------------------------------------------------------------------------------------
def image_column(fields: Fields, *keys: str) -> str:
    """The first of ``keys`` that holds images, else the first. Raises DataError (E10) if two hold different images."""
    filled = [key for key in keys if fields.references(key)]
    for key in filled[1:]:
        if fields.references(key) != fields.references(filled[0]):
            raise DataError("E10", key, f"holds images, and so does '{filled[0]}'. Keep one of these columns.")
    return filled[0] if filled else keys[0]


def check_options(unplaced_image: str = "first", assistant_image: str = "refuse") -> None:
    """Raises ValueError for an unknown value of an option."""
    if unplaced_image not in UNPLACED:
        raise ValueError(f"unknown unplaced_image '{unplaced_image}'. Use {', '.join(UNPLACED)}.")
    if assistant_image not in ASSISTANT_IMAGES:
        raise ValueError(f"unknown assistant_image '{assistant_image}'. Use {' or '.join(ASSISTANT_IMAGES)}.")


def place_images(
    fields: Fields,
    turns: list[Turn],
    num_images: int,
    key: str,
    unplaced: str,
    where: str = "all turns",
    sign: str = IMAGE,
) -> list[Turn]:
    """The turns, whose places in ``where`` have the index of their image in column ``key``.

    Without a place, signs of other projects are places. Without these, ``unplaced`` decides: the images go first into
    the first question (those of an answer cannot), are dropped, or the row is refused. Images that the parts have
    themselves, in the same order, need no place. Raises DataError (E10) if places do not fit the images.
    """
    roles, first = WHERE[where], next(turn for turn in turns if turn.role != "system")
    field = first.field.partition("[")[0]
    own = [piece.value for turn in turns for piece in turn.pieces if piece.kind == "image" and turn.role in roles]
    if num_images and not _places(turns, roles):
        turns = turns if own else [_read_signs(turn) if turn.role in roles else turn for turn in turns]
    places = _places(turns, roles)
    if places or not num_images:
        indices = iter(in_order([place.value for place in places], sign, where, num_images, key, field))
        return [_with_indices(turn, indices) if turn.role in roles else turn for turn in turns]
    if own and own == column_entries(fields, key):
        return turns
    if unplaced == "drop":
        fields.row.warn("unplaced", f"no text has a place for the images of '{key}', which are dropped")
        return turns
    if own or unplaced == "refuse" or "user" not in roles:
        choices = "drop" if own or "user" not in roles else "first or drop"
        remedy = f"Mark their places, or convert with --unplaced-image {choices}."
        check_counts(0, sign, where, num_images, key, field, remedy)
    warn_unplaced(fields, key)
    return place_images(fields, place_first(turns, num_images), num_images, key, unplaced, where, sign)


def column_entries(fields: Fields, key: str) -> list[Any]:
    """The entries of a column as parts would have them: ``{"path": x}`` is x."""
    value = fields.values.get(key)
    plain = []
    for entry in value if isinstance(value, list) else [value]:
        filled = [one for one in entry.values() if one is not None] if isinstance(entry, dict) else []
        plain.append(filled[0] if len(filled) == 1 else entry)
    return plain


def _places(turns: list[Turn], roles: Iterable[str]) -> list[Piece]:
    return [piece for turn in turns if turn.role in roles for piece in turn.pieces if piece.kind == "place"]


def _with_indices(turn: Turn, indices: Iterator[int]) -> Turn:
    return turn._replace(pieces=[p._replace(value=next(indices)) if p.kind == "place" else p for p in turn.pieces])


def _read_signs(turn: Turn) -> Turn:
    """The turn with places where its texts have signs of other projects."""
    pieces = list[Piece]()
    for piece in turn.pieces:
        # split at a group gives text, number or None, text, ...
        found = FOREIGN_SIGN.split(piece.value) if piece.kind == "text" else []
        if len(found) < 2:
            pieces.append(piece)
            continue
        for i in range(0, len(found), 2):
            pieces += [Piece("place", found[i - 1], piece.field)] if i else []
            words = found[i].removeprefix("\n") if i else found[i]
            pieces += [piece._replace(value=words)] if words.strip() else []
    return turn._replace(pieces=pieces)


def place_first(turns: list[Turn], num_images: int) -> list[Turn]:
    """The turns with places for images before the first question."""
    first = next(i for i, turn in enumerate(turns) if turn.role == "user")
    places = [Piece("place", None, turns[first].field)] * num_images
    return [turn._replace(pieces=places + turn.pieces) if i == first else turn for i, turn in enumerate(turns)]


def warn_unplaced(fields: Fields, key: str) -> None:
    """Warn that images without a place go first."""
    fields.row.warn(
        "unplaced",
        f"no text has a place for '{key}': such images go before the first question. To refuse these rows: "
        "--unplaced-image refuse",
    )


def fill_from_column(
    fields: Fields,
    turns: list[Turn],
    key: str,
    unplaced: str,
    assistant_image: str,
    sketches: Iterable[int] = (),
    sign: str = IMAGE,
) -> list[Message]:
    """The messages of turns whose images, of questions and answers, are in one column, in order.

    An image of an answer is a sketch if ``sketches`` has its index or ``assistant_image`` is sketch. Raises DataError:
    E06 for another image of an answer, E10 if the numbers of images and places differ.
    """
    references, sketches = fields.references(key), set(sketches)
    several = isinstance(fields.values.get(key), list)
    turns = place_images(fields, turns, len(references), key, unplaced, sign=sign)
    for turn in turns:
        for piece in turn.pieces if turn.role == "assistant" and assistant_image != "sketch" else ():
            if piece.kind == "place" and piece.value not in sketches:
                raise DataError("E06", piece.field, "an image in an answer. Convert with --assistant-image sketch.")
    used = _places(turns, ROLES.values())
    pictures = [fields.load(one, f"{key}[{i}]" if several else key) for i, one in enumerate(references if used else [])]
    images, drawn = [Image(one) for one in pictures], [Sketch(one) for one in pictures]
    by_role: dict[str, Sequence[Part]] = {"system": images, "user": images, "assistant": drawn}
    return messages(fields, turns, by_role, assistant_image)


def messages(
    fields: Fields, turns: Iterable[Turn], places: Mapping[str, Sequence[Part]], assistant_image: str = "refuse"
) -> list[Message]:
    """The messages of turns. ``places``: role -> the images that its places name by index.

    Raises DataError: E06 for an image of an assistant turn unless ``assistant_image`` is sketch, E07 to E09 for an
    invalid image, E18 for a reserved token in a text.
    """
    return [
        Message(turn.role, tuple(_part(fields, turn, piece, places, assistant_image) for piece in turn.pieces))
        for turn in turns
    ]


def _part(fields: Fields, turn: Turn, piece: Piece, places: Mapping[str, Sequence[Part]], assistant_image: str) -> Part:
    part: Part | None
    if piece.kind == "text":
        return Text(checked_text(piece.value, piece.field, turn.role), turn.loss)
    if piece.kind == "place":
        if not places.get(turn.role):
            raise DataError("E10", piece.field, "the place of an image that no column has. Give its path, or drop it.")
        part = places[turn.role][piece.value]
    elif turn.role == "assistant":
        if assistant_image != "sketch":
            raise DataError("E06", piece.field, "an image in an answer. Convert with --assistant-image sketch.")
        part = Sketch(fields.load(piece.value, piece.field))
    else:
        part = Image(fields.load(piece.value, piece.field))
    if turn.loss is not None and isinstance(part, Sketch):
        return Sketch(part.image, part.k, turn.loss, part.state, part.redundant, part.box)
    return part
