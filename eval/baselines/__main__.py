"""Accuracy and cost of explicit thinking: a baseline on held-out items of a task.

    python -m eval.baselines CHECKPOINT --baseline crop:turns=4 --out FILE.json
        [--task wall_maze] [--levels 3,4] [--n 200] [--seed 1] [--run-code] [--page FILE.html]
    python -m eval.baselines --list

Without ``--baseline``, the one that the checkpoint was trained on. FILE.items.jsonl beside FILE.json has one line an item,
which eval.compare reads. ``--page`` shows the first chats with all their pictures. Code that a model writes runs in a sandbox,
and only with ``--run-code``. The same command resumes an interrupted run from FILE.unfinished.
"""

from __future__ import annotations

if __name__ == "__main__":
    from eval.turns.command import main

    main(description=__doc__)
