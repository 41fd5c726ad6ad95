"""``python -m latent_reason.contracts``: pytest on the contracts, with the options of conftest.py."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from ..errors import pip_install


def main(arguments: list[str] | None = None) -> int:
    """Run the contracts and return the exit status of pytest."""
    missing = [name for name in ("pytest", "hypothesis") if find_spec(name) is None]
    if missing:
        sys.exit(f"error: the contracts need {' and '.join(missing)}. Install with: {pip_install('dev')}")
    import pytest

    folder = Path(__file__).parent
    own = [str(folder), f"--rootdir={Path.cwd()}"]  # given as a folder, so that pytest reads conftest's options in time
    return pytest.main([*own, *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
