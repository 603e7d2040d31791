"""``python -m wszoo``."""

from wszoo.cli import main

main()
