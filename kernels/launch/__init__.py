"""Launchers: each checks its arrays and puts one operation on a stream; none allocates or waits."""

from ndp_rt.kernels.launch.fuse_maps import fuse_maps
from ndp_rt.kernels.launch.score import score
from ndp_rt.kernels.launch.smooth import count_smooth_tiles, smooth, smooth_levels
from ndp_rt.kernels.launch.threshold import threshold

__all__ = ["count_smooth_tiles", "fuse_maps", "score", "smooth", "smooth_levels", "threshold"]
