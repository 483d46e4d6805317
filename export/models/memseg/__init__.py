"""MemSeg (Yang et al. 2023, arXiv 2205.00908): a head segments what differs from a memory of good images."""

from ndp_rt.export.models.memseg.family import MemSeg

FAMILY = MemSeg()
