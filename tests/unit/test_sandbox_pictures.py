"""What code in the sandbox can do: print, take and give pictures, draw with turtle and matplotlib."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from eval.sandbox import Limits


def test_what_is_printed_is_text(sandbox):
    code = "import sys\nprint('a\\ud800é')\nprint('b', file=sys.stderr)\nprint('c', end='')"
    assert sandbox(code).text == "a\\ud800é\nb\nc"


def test_picture_goes_in_and_out(sandbox):
    image = Image.fromarray(np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3))
    ran = sandbox("print(image.size, image.mode); show(image); image.rotate(180).show()", image)
    assert ran.text == "(7, 5) RGB\n"
    first, second = ran.pictures
    assert np.array_equal(first, image) and np.array_equal(second, image.rotate(180))
    assert "name 'image' is not defined" in sandbox("image").error


def test_arrays_and_modes(sandbox):
    code = """
import numpy as np
from PIL import Image, ImageDraw
show(np.full((4, 6), 7, np.uint8))
picture = Image.new("RGBA", (6, 4))
ImageDraw.Draw(picture).rectangle([0, 0, 2, 3], fill="red")
show(picture)
"""
    gray, drawn = sandbox(code).pictures
    assert gray.mode == drawn.mode == "RGB" and gray.size == drawn.size == (6, 4)
    assert gray.getpixel((0, 0)) == (7, 7, 7)
    assert drawn.getpixel((0, 0)) == (255, 0, 0) and drawn.getpixel((5, 0)) == (255, 255, 255)  # transparent is white
    assert sandbox("show([1])").error.startswith("TypeError: show() takes a PIL image or an array, not list")


def test_pictures_are_bounded(sandbox):
    code = (
        "from PIL import Image\nshow(Image.new('RGB', (3000, 1500)))\nfor i in range(9): show(Image.new('L', (1, 1)))"
    )
    ran = sandbox(code)
    assert ran.error.startswith("ValueError: at most 4 pictures can be shown (line 3: ")
    assert len(ran.pictures) == 4 and ran.pictures[0].size == (1448, 724)
    ran = sandbox("from PIL import Image\nshow(Image.new('L', (9, 9)))\nwhile True: pass", limits=Limits(seconds=0.3))
    assert len(ran.pictures) == 1 and ran.error  # what was shown before the end is kept


def test_scratch_folder_can_be_used(sandbox):
    code = """
from PIL import Image
Image.new("RGB", (3, 2), "blue").save("a.png")
with open("b.txt", "w") as file:
    file.write("text")
import os
print(sorted(os.listdir()), open("b.txt").read())
show(Image.open("a.png"))
"""
    ran = sandbox(code)
    assert sandbox("import tempfile; tempfile.mkstemp()").error is None
    assert ran.text == "['a.png', 'b.txt'] text\n" and ran.pictures[0].getpixel((0, 0)) == (0, 0, 255)


def test_turtle_draws(sandbox):
    code = """
import turtle
turtle.setup(200, 100)
t = turtle.Turtle()
t.speed(0)
t.pensize(3)
t.color("red", "#0000ff")
t.forward(50)
t.left(90)
t.forward(20)
t.penup(); t.goto(-60, -20); t.setheading(0); t.pendown()
t.begin_fill(); t.circle(15); t.end_fill()
print(t.heading(), [round(x) for x in t.pos()], turtle.Screen() is not None)
turtle.bgcolor(1, 1, 0.8)
turtle.done()
"""
    ran = sandbox(code)
    picture = ran.pictures[0]
    assert ran.text == "0.0 [-60, -20] True\n" and picture.size == (200, 100)
    colors = {
        place: picture.getpixel(place)
        for place in ((125, 50), (150, 40), (40, 55), (25, 55), (100, 70), (40, 70), (150, 60))
    }
    red, blue, yellow = (255, 0, 0), (0, 0, 255), (255, 255, 204)
    assert colors == {
        (125, 50): red,  # to the right of the centre
        (150, 40): red,  # up
        (40, 55): blue,  # the centre of the circle
        (25, 55): red,  # its edge
        (100, 70): yellow,  # the pen was up
        (40, 70): red,  # where the circle starts
        (150, 60): yellow,
    }


def test_functions_of_turtle_draw(sandbox):
    ran = sandbox(
        "from turtle import *\ncolormode(255); pencolor(0, 128, 0)\nfor _ in range(4): fd(100); lt(90)\nmainloop()"
    )
    assert ran.error is None and ran.pictures[0].getpixel((300, 256)) == (0, 128, 0)
    assert sandbox("import turtle").pictures == []  # nothing drawn
    assert "unknown color specifier: 'no color'" in sandbox("import turtle; turtle.color('no color')").error


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib")
def test_figures_are_shown(sandbox):
    code = """
import matplotlib
import matplotlib.pyplot as plt
plt.figure(figsize=(2, 1), dpi=100)
plt.plot([0, 1], [0, 1], color="red")
plt.savefig("a.png")
plt.show()
plt.figure(figsize=(1, 2), dpi=100, facecolor="blue")
"""
    ran = sandbox(code)
    assert ran.error is None and ran.text == ""
    assert [picture.size for picture in ran.pictures] == [(200, 100), (100, 200)]  # shown, and open at the end
    assert any(pixel == (255, 0, 0) for _, pixel in ran.pictures[0].getcolors(10**6))
    assert ran.pictures[1].getpixel((0, 0)) == (0, 0, 255)
    agg = sandbox(
        "import matplotlib; matplotlib.use('Agg'); import matplotlib.pyplot as plt; plt.plot([1]); plt.show()"
    )
    assert len(agg.pictures) == 1
