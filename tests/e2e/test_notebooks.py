"""The notebooks of examples/ run from the first cell to the last, and are committed without what they print.

One kernel runs them in turn, because importing torch takes seconds. Names of one notebook are unknown to the next.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
from tiny_runs import ROOT

EXAMPLES = ROOT / "examples"
#: notebook -> how many pictures and figures it shows
FIGURES = {"01_sketch_and_probe": 2, "02_own_data": 2, "03_new_method": 1, "04_results_to_figures": 1}
missing = [name for name in ("nbformat", "nbclient", "ipykernel", "pandas") if importlib.util.find_spec(name) is None]
needs_jupyter = pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


def read(name: str):
    import nbformat

    book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    return book


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """A kernel that has not imported anything, in the folder where Jupyter starts notebooks."""
    from jupyter_client.manager import KernelManager

    place = tmp_path_factory.mktemp("jupyter")
    env = {**os.environ, "IPYTHONDIR": str(place / "ipython")}
    manager = KernelManager(kernel_name="python3", transport="ipc", connection_file=str(place / "kernel.json"))
    manager.start_kernel(cwd=EXAMPLES, env=env)
    yield manager
    manager.shutdown_kernel(now=True)


def run(book, kernel) -> list[dict]:
    """What the cells of a notebook show. Raises CellExecutionError for a cell that fails."""
    import nbformat
    from nbclient import NotebookClient

    book.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    client = NotebookClient(book, km=kernel, timeout=300)
    try:
        client.execute()
    finally:
        client.kc.stop_channels()
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def test_every_notebook_is_run_and_named_in_the_documentation():
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == FIGURES.keys()
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == [
        f"{n}.ipynb" for n in FIGURES
    ]


@needs_jupyter
@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_is_committed_without_outputs(name):
    book = read(name)
    assert book.cells[0].cell_type == "markdown" and book.cells[0].source.startswith("# ")
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code) and len(code) <= 8
    assert not any("/home/" in cell.source or "/tmp/" in cell.source for cell in book.cells)


@needs_jupyter
@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_runs(name, kernel):
    outputs = run(read(name), kernel)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == FIGURES[name]
    if name == "02_own_data":
        assert any("Checkpoint: " in output.get("data", {}).get("text/plain", "") for output in outputs), (
            "it has trained"
        )
    if name == "01_sketch_and_probe":
        assert any("follow_rate" in output.get("data", {}).get("text/plain", "") for output in outputs)


@needs_jupyter
@pytest.mark.slow
def test_a_cell_that_fails_is_noticed(kernel):
    import nbformat
    from nbclient.exceptions import CellExecutionError

    cells = [nbformat.v4.new_code_cell("reasoner")]
    with pytest.raises(CellExecutionError, match="name 'reasoner' is not defined"):
        run(nbformat.v4.new_notebook(cells=cells), kernel)
