from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from wszoo_sdxl.pipeline import Wish, draw

from wszoo.errors import MalformedError, NotFoundError, UsageError
from wszoo.families.local import LocalModel
from wszoo.progress import Silent

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Exported = "tuple[LocalModel, dict[str, str]]"

# Of 255 grey levels. Both sides compute in fp32 in another order, so that a colour between two levels may be rounded
# either way; nothing more was ever seen.
MOST = 1


@pytest.fixture(scope="module")
def model(exported: Exported) -> LocalModel:
    return exported[0]


def theirs(folder: Path, wish: Wish) -> NDArray[np.uint8]:
    import diffusers
    import torch
    from PIL import Image

    kind = diffusers.StableDiffusionXLPipeline if wish.image is None else diffusers.StableDiffusionXLImg2ImgPipeline
    pipeline = kind.from_pretrained(folder, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    wanted: dict[str, Any] = {"height": wish.height or None, "width": wish.width or None}
    if wish.image is not None:
        wanted = {"image": Image.fromarray(wish.image), "strength": wish.strength}
    images = pipeline(
        prompt=wish.prompt,
        negative_prompt=wish.negative,
        num_inference_steps=wish.steps,
        guidance_scale=wish.guidance,
        num_images_per_prompt=wish.count,
        generator=torch.Generator().manual_seed(wish.seed),
        output_type="np",
        **wanted,
    ).images
    return np.round(images * 255).astype(np.uint8)


@pytest.mark.parametrize(
    "wish",
    [
        Wish(prompt="a cat", steps=3),
        Wish(prompt="two cats, 3 owls", negative="dogs", guidance=7.5, steps=4, seed=3, height=40, width=24, count=2),
        Wish(prompt="cat", guidance=0, steps=1),
        Wish(prompt="cat " * 100, negative="", steps=2),
    ],
    ids=["plain", "everything", "unguided", "too long"],
)
def test_pictures_are_those_of_diffusers(model: LocalModel, base: Path, wish: Wish) -> None:
    ours = draw(model, wish, Silent())
    expected = theirs(base, wish)
    assert ours.shape == expected.shape
    assert expected.std() > 30  # or anything would pass
    assert np.abs(ours.astype(int) - expected).max() <= MOST


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_starting_from_a_picture_gives_those_of_diffusers(model: LocalModel, base: Path, strength: float) -> None:
    image = np.random.default_rng(1).integers(0, 256, (32, 24, 3), np.uint8)
    wish = Wish(prompt="a cat", steps=4, image=image, strength=strength, seed=2)
    assert np.abs(draw(model, wish, Silent()).astype(int) - theirs(base, wish)).max() <= MOST


def test_schedulers_that_add_noise_at_every_step_follow_the_seed(model: LocalModel, base: Path, tmp_path: Path) -> None:
    import shutil

    import diffusers
    from wszoo_sdxl import tiny

    config = {**tiny.SCHEDULER, "timestep_spacing": "trailing"}
    turbo = shutil.copytree(base, tmp_path / "turbo")
    diffusers.EulerAncestralDiscreteScheduler(**config).save_pretrained(turbo / "scheduler")
    index = (turbo / "model_index.json").read_text()
    (turbo / "model_index.json").write_text(index.replace("EulerDiscrete", "EulerAncestralDiscrete"))
    stored = (turbo / "scheduler" / "scheduler_config.json").read_bytes()
    changed = LocalModel(model.graphs, {**model.files, "scheduler.scheduler_config.json": stored})
    wish = Wish(prompt="a cat", guidance=0, steps=3, seed=5)
    assert np.abs(draw(changed, wish, Silent()).astype(int) - theirs(turbo, wish)).max() <= MOST


def test_seeds_and_prompts_make_a_difference(model: LocalModel) -> None:
    first, seed, prompt = (
        draw(model, Wish(prompt=text, steps=2, seed=number), Silent()).astype(int)
        for text, number in (("a cat", 0), ("a cat", 1), ("owls", 0))
    )
    assert np.abs(first - seed).max() > 10
    assert np.abs(first - prompt).max() > 1


@pytest.mark.parametrize("size", [{"height": 30}, {"width": 2}, {"height": 33}])
def test_impossible_sizes_are_refused(model: LocalModel, size: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="multiple of 4"):
        draw(model, Wish(prompt="a cat", **size), Silent())


def test_strength_that_leaves_no_step_is_refused(model: LocalModel) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(UsageError, match="strength"):
        draw(model, Wish(prompt="a cat", image=image, steps=2, strength=0.3), Silent())


def test_a_model_without_its_unet_cannot_draw(model: LocalModel) -> None:
    graphs = {name: graph for name, graph in model.graphs.items() if name != "unet"}
    with pytest.raises(NotFoundError, match="unet"):
        draw(LocalModel(graphs, model.files), Wish(prompt="a cat"), Silent())


def test_a_model_without_one_of_its_text_encoders_cannot_read(model: LocalModel) -> None:
    graphs = {name: graph for name, graph in model.graphs.items() if name != "text_encoder"}
    with pytest.raises(NotFoundError, match="text_encoder"):
        draw(LocalModel(graphs, model.files), Wish(prompt="a cat"), Silent())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scheduler.scheduler_config.json", b"{"),
        ("scheduler.scheduler_config.json", b'{"_class_name": "UNet2DConditionModel"}'),
        ("scheduler.scheduler_config.json", b'{"_class_name": "logging.Scheduler"}'),
        ("scheduler.scheduler_config.json", b'{"_class_name": "EulerDiscreteScheduler", "beta_schedule": "magic"}'),
        ("tokenizer.tokenizer.json", b"not a tokenizer"),
        ("pipeline.json", b'{"edge": -1}'),
        ("pipeline.json", b"[]"),
    ],
)
def test_hostile_assets_are_refused(model: LocalModel, name: str, content: bytes) -> None:
    with pytest.raises(MalformedError):
        draw(LocalModel(model.graphs, {**model.files, name: content}), Wish(prompt="a cat", steps=1), Silent())
