"""All benchmarks, one after the other, as markdown: ``python benchmarks/run.py [--quick]``."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
TABLES = {
    "Starting": ["startup.py"],
    "Resolving": ["resolve.py"],
    "Splicing": ["splice.py"],
    "Pulling": ["transfer.py"],
    "Verifying": ["verify.py"],
}
PACKAGES = ("numpy", "zstandard", "onnx", "onnxruntime", "tensorrt-rtx", "torch", "transformers")


def main() -> int:
    """Run each script; its table is what it prints."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}.")
    failed = 0
    for title, words in TABLES.items():
        print(f"\n## {title}\n", flush=True)
        extra = [word for word in sys.argv[1:] if title == "Splicing"]
        failed += (
            subprocess.run([sys.executable, str(HERE / words[0]), *words[1:], *extra], check=False).returncode != 0
        )
    return failed


if __name__ == "__main__":
    sys.exit(main())
