"""What preset `paper` may remember; imports no PyTorch."""

MEMORIES = ("images", "patches")
