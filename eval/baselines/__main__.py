"""``python -m eval.baselines``; see eval/turns/command.py."""

from eval.turns.command import main

if __name__ == "__main__":
    main()
