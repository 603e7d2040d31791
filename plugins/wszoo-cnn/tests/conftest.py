from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wszoo.testing.families import request_for

__all__ = ["request_for"]

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))  # the suite also runs where the plugin is not installed


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet of 5 classes at 32x32, saved as transformers saves it."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    names = {0: "cat", 1: "dog", 2: "fox", 3: "owl", 4: "eel"}
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=names, image_size=32
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    return folder
