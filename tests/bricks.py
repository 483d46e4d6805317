"""The bundle that ndp-rt 0.1.0 shipped: NDP-Net, preset `edge`, 128 px, format version 1; and its photographs."""

from pathlib import Path

BRICKS = Path(__file__).parent / "data" / "bricks.ndp"
BRICK_IMAGES = BRICKS.with_name("bricks")  # good_*.png, defect_*.png with painted defects, and their mask_*.png
