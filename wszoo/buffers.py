"""The type of raw bytes in memory or mapped."""

import numpy as np

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
"""A flat array of bytes; often read-only and memory-mapped."""
