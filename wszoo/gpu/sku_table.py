"""NVIDIA GPU products of Turing and later, so that ``--gpu "RTX 4090"`` works on a machine without one.

A row is (name as the driver reports it, without "NVIDIA"; multiprocessors; memory in GiB, nominal). None stands where
one name covers several products (a GeForce RTX 4060 Ti has 8 or 16 GiB) or where sources disagree. Compute
capabilities are from NVIDIA's CUDA GPUs page, the rest from its data sheets. A name missing here can always be asked
for as ``sm89``.
"""

from __future__ import annotations

Row = tuple[str, int | None, int | None]

TURING: tuple[Row, ...] = (
    ("GeForce RTX 2060", None, None),
    ("GeForce RTX 2060 SUPER", 34, 8),
    ("GeForce RTX 2060 with Max-Q Design", 30, 6),
    ("GeForce RTX 2070", 36, 8),
    ("GeForce RTX 2070 with Max-Q Design", 36, 8),
    ("GeForce RTX 2070 SUPER", 40, 8),
    ("GeForce RTX 2070 Super with Max-Q Design", 40, 8),
    ("GeForce RTX 2080", 46, 8),
    ("GeForce RTX 2080 with Max-Q Design", 46, 8),
    ("GeForce RTX 2080 SUPER", 48, 8),
    ("GeForce RTX 2080 Super with Max-Q Design", 48, 8),
    ("GeForce RTX 2080 Ti", 68, 11),
    ("TITAN RTX", 72, 24),
    ("Quadro RTX 3000", 30, 6),
    ("Quadro RTX 4000", None, 8),
    ("Quadro RTX 5000", 48, 16),
    ("Quadro RTX 6000", 72, 24),
    ("Quadro RTX 8000", 72, 48),
    ("Tesla T4", 40, 16),
)

AMPERE_DATA_CENTER: tuple[Row, ...] = (
    ("A30", 56, 24),
    ("A100-PCIE-40GB", 108, 40),
    ("A100-SXM4-40GB", 108, 40),
    ("A100 80GB PCIe", 108, 80),
    ("A100-SXM4-80GB", 108, 80),
    ("A800 80GB PCIe", 108, 80),
    ("A800-SXM4-80GB", 108, 80),
)

AMPERE: tuple[Row, ...] = (
    ("GeForce RTX 2050", 16, 4),
    ("GeForce RTX 3050", None, None),
    ("GeForce RTX 3050 Laptop GPU", None, 4),
    ("GeForce RTX 3050 6GB Laptop GPU", 20, 6),
    ("GeForce RTX 3050 Ti Laptop GPU", 20, 4),
    ("GeForce RTX 3060", 28, None),
    ("GeForce RTX 3060 Laptop GPU", 30, 6),
    ("GeForce RTX 3060 Ti", 38, 8),
    ("GeForce RTX 3070", 46, 8),
    ("GeForce RTX 3070 Laptop GPU", 40, 8),
    ("GeForce RTX 3070 Ti", 48, 8),
    ("GeForce RTX 3070 Ti Laptop GPU", 46, 8),
    ("GeForce RTX 3080", None, None),
    ("GeForce RTX 3080 Laptop GPU", 48, None),
    ("GeForce RTX 3080 Ti", 80, 12),
    ("GeForce RTX 3080 Ti Laptop GPU", 58, 16),
    ("GeForce RTX 3090", 82, 24),
    ("GeForce RTX 3090 Ti", 84, 24),
    ("RTX A400", 6, 4),
    ("RTX A500 Laptop GPU", 16, 4),
    ("RTX A1000", 18, 8),
    ("RTX A1000 Laptop GPU", 16, 4),
    ("RTX A1000 6GB Laptop GPU", 20, 6),
    ("RTX A2000", 26, 6),
    ("RTX A2000 12GB", 26, 12),
    ("RTX A2000 Laptop GPU", 20, 4),
    ("RTX A2000 8GB Laptop GPU", 20, 8),
    ("RTX A3000 Laptop GPU", 32, 6),
    ("RTX A3000 12GB Laptop GPU", 32, 12),
    ("RTX A4000", 48, 16),
    ("RTX A4000 Laptop GPU", 40, 8),
    ("RTX A4500", 56, 20),
    ("RTX A4500 Laptop GPU", 46, 16),
    ("RTX A5000", 64, 24),
    ("RTX A5000 Laptop GPU", 48, 16),
    ("RTX A5500", 80, 24),
    ("RTX A5500 Laptop GPU", 58, 16),
    ("RTX A6000", 84, 48),
    ("A2", 10, 16),
    ("A10", 72, 24),
    ("A10G", 80, 24),
    ("A16", 10, 16),
    ("A40", 84, 48),
)

ADA: tuple[Row, ...] = (
    ("GeForce RTX 4050 Laptop GPU", 20, 6),
    ("GeForce RTX 4060", 24, 8),
    ("GeForce RTX 4060 Laptop GPU", 24, 8),
    ("GeForce RTX 4060 Ti", 34, None),
    ("GeForce RTX 4070", 46, 12),
    ("GeForce RTX 4070 Laptop GPU", 36, 8),
    ("GeForce RTX 4070 SUPER", 56, 12),
    ("GeForce RTX 4070 Ti", 60, 12),
    ("GeForce RTX 4070 Ti SUPER", 66, 16),
    ("GeForce RTX 4080", 76, 16),
    ("GeForce RTX 4080 Laptop GPU", 58, 12),
    ("GeForce RTX 4080 SUPER", 80, 16),
    ("GeForce RTX 4090", 128, 24),
    ("GeForce RTX 4090 D", 114, 24),
    ("GeForce RTX 4090 Laptop GPU", 76, 16),
    ("RTX 500 Ada Generation Laptop GPU", 16, 4),
    ("RTX 1000 Ada Generation Laptop GPU", 20, 6),
    ("RTX 2000 Ada Generation", 22, 16),
    ("RTX 2000 Ada Generation Laptop GPU", 24, 8),
    ("RTX 3000 Ada Generation Laptop GPU", 36, 8),
    ("RTX 3500 Ada Generation Laptop GPU", 40, 12),
    ("RTX 4000 Ada Generation", 48, 20),
    ("RTX 4000 Ada Generation Laptop GPU", 58, 12),
    ("RTX 4000 SFF Ada Generation", 48, 20),
    ("RTX 4500 Ada Generation", 60, 24),
    ("RTX 5000 Ada Generation", 100, 32),
    ("RTX 5000 Ada Generation Laptop GPU", 76, 16),
    ("RTX 5880 Ada Generation", 110, 48),
    ("RTX 6000 Ada Generation", 142, 48),
    ("L4", 58, 24),
    ("L20", 92, 48),
    ("L40", 142, 48),
    ("L40S", 142, 48),
)

HOPPER: tuple[Row, ...] = (
    ("H20", 78, 96),
    ("H100 PCIe", 114, 80),
    ("H100 80GB HBM3", 132, 80),
    ("H100 NVL", 132, 94),
    ("H800 PCIe", 114, 80),
    ("H800", 132, 80),
    ("H200", 132, 141),
    ("H200 NVL", 132, 141),
    ("GH200 480GB", 132, 96),
    ("GH200 144G HBM3e", 132, 144),
)

BLACKWELL_DATA_CENTER: tuple[Row, ...] = (
    ("B200", 148, None),
    ("GB200", None, None),
)

BLACKWELL_ULTRA: tuple[Row, ...] = (
    ("B300 SXM6 AC", None, None),
    ("GB300", None, None),
)

BLACKWELL: tuple[Row, ...] = (
    ("GeForce RTX 5050", 20, 8),
    ("GeForce RTX 5050 Laptop GPU", 20, 8),
    ("GeForce RTX 5060", 30, 8),
    ("GeForce RTX 5060 Laptop GPU", 26, 8),
    ("GeForce RTX 5060 Ti", 36, None),
    ("GeForce RTX 5070", 48, 12),
    ("GeForce RTX 5070 Laptop GPU", 36, 8),
    ("GeForce RTX 5070 Ti", 70, 16),
    ("GeForce RTX 5070 Ti Laptop GPU", 46, 12),
    ("GeForce RTX 5080", 84, 16),
    ("GeForce RTX 5080 Laptop GPU", 60, 16),
    ("GeForce RTX 5090", 170, 32),
    ("GeForce RTX 5090 D", 170, 32),
    ("GeForce RTX 5090 Laptop GPU", 82, 24),
    ("RTX PRO 500 Blackwell Generation Laptop GPU", 14, 6),
    ("RTX PRO 1000 Blackwell Generation Laptop GPU", 20, 8),
    ("RTX PRO 2000 Blackwell", 34, 16),
    ("RTX PRO 2000 Blackwell Generation Laptop GPU", 26, 8),
    ("RTX PRO 3000 Blackwell Generation Laptop GPU", 46, 12),
    ("RTX PRO 4000 Blackwell", 70, 24),
    ("RTX PRO 4000 Blackwell SFF Edition", 70, 24),
    ("RTX PRO 4000 Blackwell Generation Laptop GPU", 60, 16),
    ("RTX PRO 4500 Blackwell", 82, 32),
    ("RTX PRO 5000 Blackwell", 110, 48),
    ("RTX PRO 5000 Blackwell Generation Laptop GPU", 82, 24),
    ("RTX PRO 6000 Blackwell Workstation Edition", 188, 96),
    ("RTX PRO 6000 Blackwell Max-Q Workstation Edition", 188, 96),
    ("RTX PRO 6000 Blackwell Server Edition", 188, 96),
)

GRACE_BLACKWELL_DESKTOP: tuple[Row, ...] = (("GB10", 48, 128),)  # DGX Spark; the memory is the CPU's too

BY_COMPUTE_CAPABILITY: dict[str, tuple[Row, ...]] = {
    "7.5": TURING,
    "8.0": AMPERE_DATA_CENTER,
    "8.6": AMPERE,
    "8.9": ADA,
    "9.0": HOPPER,
    "10.0": BLACKWELL_DATA_CENTER,
    "10.3": BLACKWELL_ULTRA,
    "12.0": BLACKWELL,
    "12.1": GRACE_BLACKWELL_DESKTOP,
}

ALIASES: dict[str, str] = {
    "H100 SXM": "H100 80GB HBM3",
    "H100 SXM5": "H100 80GB HBM3",
    "H200 SXM": "H200",
    "B300": "B300 SXM6 AC",
    "DGX Spark": "GB10",
}
