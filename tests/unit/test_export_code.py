"""The code that an export takes from the library."""

from __future__ import annotations

import pytest

from latent_reason.checkpoint.export import bundle

#: what a folder is made of: a method on a family


def test_imports_of_every_form_are_rewritten(tmp_path, monkeypatch):
    library = tmp_path / "lib"
    monkeypatch.setattr(bundle, "LIBRARY", library)
    monkeypatch.setattr(bundle, "FILES", {"a": "latent_reason_a", "c": "latent_reason_c", "": "latent_reason_rest"})
    one = (
        '"""A."""\nimport json\nfrom . import b\nfrom .c import (\n    one,\n    two as other,\n)\n\n'
        "def f(x: unused) -> None:\n    from .c.d import z\n\n    return b.g(one, other, z, json)\n"
    )
    files = {
        "a.py": one,
        "b.py": "from .e import h as i\n\ndef g(*x):\n    return i(x)\n\ndef left_out():\n    pass\n",
        "c/__init__.py": "from ..b import left_out\nfrom .d import one, two\n",
        "c/d.py": "one, two, z, w = range(4)\n",
        "e.py": "def h(x):\n    return x\n",
    }
    for name, text in files.items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(text)
    kept = bundle.Kept([(library / "a.py", "f")])
    found = bundle.by_file(kept)
    assert {name: [p.name for p in paths] for name, paths in found.items()} == {
        "latent_reason_a": ["a.py"],
        "latent_reason_rest": ["e.py", "b.py"],
        "latent_reason_c": ["d.py"],
    }
    code = {name: bundle.file_code(kept, name, paths) for name, paths in found.items()}
    assert code["latent_reason_a"].text().partition("annotations\n\n")[2] == (
        "import json\n\nfrom . import latent_reason_rest as b\nfrom .latent_reason_c import one, two as other\n\n"
        "def f(x: unused) -> None:\n    from .latent_reason_c import z\n\n    return b.g(one, other, z, json)\n"
    )
    rest = code["latent_reason_rest"].text()
    assert "def h(x):" in rest and "i = h" in rest and "import" not in rest.partition("annotations\n")[2]
    assert "left_out" not in rest
    (library / "e.py").write_text("def h(x):\n    return g\n\ng = 1\n")
    kept = bundle.Kept([(library / "a.py", "f")])
    with pytest.raises(ValueError, match="g is both"):
        bundle.file_code(kept, "latent_reason_rest", bundle.by_file(kept)["latent_reason_rest"])
