"""Lets ``python -m phi3_industry`` do what ``phi3-industry`` does."""

import sys

from phi3_industry.cli import main

if __name__ == "__main__":
    sys.exit(main())
