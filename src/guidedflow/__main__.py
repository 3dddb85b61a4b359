"""``python -m guidedflow`` is the command ``guidedflow``."""

from guidedflow.cli import main

if __name__ == "__main__":
    main()
