"""``python -m plifctl``."""

from plifctl.cli import main

if __name__ == "__main__":
    main()
