"""What only publishers (``export``) or only the demo (``run``) need."""

from __future__ import annotations

from functools import partial

from wszoo.families import libraries

require = partial(libraries.require, plugin="wszoo-sdxl")
