"""Settings of MemSeg's preset `paper`, and the choices that depend on its backbone and its memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ndp_rt.errors import InputError
from ndp_rt.export.features.settings import PretrainedSettings
from ndp_rt.export.models.memseg.paper.options import MEMORIES
from ndp_rt.export.training.settings import AugmentSettings, apply_changes

# Positions have to stay where they are, and the authors change nothing else of their images.
UNCHANGED = AugmentSettings(
    warp_share=0.0, is_mirrored=False, contrast=0.0, brightness=0.0, blur_share=0.0, noise_share=0.0
)

CROP_PX = 128  # of crops where patches are the memory, and of windows


@dataclass(frozen=True, kw_only=True)
class PaperSettings(PretrainedSettings):
    """Everything that decides the weights, besides the data and the machine; the defaults are the authors'.

    Raises:
        InputError: a value out of its range.
    """

    presets: ClassVar[tuple[str, ...]] = ("paper",)
    size_step_px: ClassVar[int] = 32

    preset: str = "paper"
    backbone: str = "resnet18"
    phase_steps: tuple[int, ...] = (2701,)
    crop_px: int = 256
    batch_size: int = 4  # good images a step, and as many of the same with a simulated defect
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.04
    momentum: float = 0.9  # of sgd
    weight_decay: float = 3e-5
    averaging: float = 0.99  # of the trained weights, over steps
    focal_gamma: float = 4.0
    focal_share: float = 0.4  # of the loss; the rest is the L1 loss
    window_px: int = 0  # side of the parts of an image that the trained layers see; 0: all of it
    memory: Literal["images", "patches"] = "images"
    memory_image_count: int = 30  # at most; never more than half of the images
    memory_patch_count: int = 512  # of each level, where patches are the memory
    augment: AugmentSettings = field(default_factory=lambda: UNCHANGED)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("phase_steps", len(self.phase_steps) == 1, "one number from 1")
        self.check("averaging", 0.0 <= self.averaging < 1.0, "0 to below 1")
        self.check("focal_share", 0.0 <= self.focal_share <= 1.0, "0 to 1")
        self.check("memory", self.memory in MEMORIES, " or ".join(MEMORIES))
        self.check("optimizer", self.optimizer in ("sgd", "adamw"), "sgd or adamw")
        self.check("memory_image_count", self.memory_image_count >= 1, "1 or more")
        self.check("memory_patch_count", self.memory_patch_count >= 1, "1 or more")
        self.check(
            "window_px", self.window_px >= 0 and self.window_px % self.size_step_px == 0, "a multiple of 32, or 0"
        )
        if self.memory == "images":
            self.check("crop_px", self.crop_px >= max(self.height_px, self.width_px), "whole images (--memory images)")
            is_still = self.augment.warp_share == 0.0 and not self.augment.is_mirrored
            self.check("augment", is_still, "without warps and mirrors (--memory images compares position by position)")


def make_settings(changes: Mapping[str, Any], options: Mapping[str, Any]) -> PaperSettings:
    """Return the settings for a backbone and a kind of memory.

    **Choice** for EfficientNet-Lite: AdamW at 2e-3, as preset `lite` has it, and fewer steps. The authors' rate is for
    SGD and ResNet18. Whole images are compared with the memory, and the trained layers see a window of the outcome: a
    step takes half the time.

    **Choice** for a memory of patches: crops, turned, mirrored and relit as in preset `lite`, since positions mean
    nothing to it.

    Raises:
        InputError: a value out of its range, or options that do not go together.
    """
    given: dict[str, Any] = {name: options[name] for name in ("backbone", "memory") if options.get(name)}
    is_of_patches = given.get("memory") == "patches"
    if given.get("backbone", PaperSettings.backbone) != "resnet18":
        given |= {"optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-4}
        given |= {"phase_steps": (400,)} if is_of_patches else {"phase_steps": (300,), "window_px": CROP_PX}
    sides = [changes.get(name, getattr(PaperSettings, name)) for name in ("height_px", "width_px")]
    given["crop_px"] = min(CROP_PX, *sides) if is_of_patches else max(sides)
    if is_of_patches:
        given["augment"] = AugmentSettings()
    elif isinstance(changes.get("augment"), Mapping):
        raise InputError(
            "--augment: expected --memory patches with it, got --memory images, which compares images position by "
            "position. Leave it out."
        )
    return PaperSettings(**apply_changes(given, changes))
