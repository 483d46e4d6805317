"""Launchers: each checks its arrays and puts one operation on a stream; none allocates or waits."""

from ndp_rt.kernels.launch.fuse_maps import fuse_maps
from ndp_rt.kernels.launch.preprocess import preprocess
from ndp_rt.kernels.launch.rbfrm import count_rbfrm_scratch_bytes, find_rbfrm_patches_shape, prepare_rbfrm, rbfrm
from ndp_rt.kernels.launch.score import score
from ndp_rt.kernels.launch.smooth import count_smooth_tiles, smooth, smooth_levels
from ndp_rt.kernels.launch.threshold import threshold

__all__ = [
    "count_rbfrm_scratch_bytes",
    "count_smooth_tiles",
    "find_rbfrm_patches_shape",
    "fuse_maps",
    "prepare_rbfrm",
    "preprocess",
    "rbfrm",
    "score",
    "smooth",
    "smooth_levels",
    "threshold",
]
