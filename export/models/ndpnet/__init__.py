"""NDP-Net (Luo, Yao, Yu, IEEE TIM 2023): network, losses, distillation, rewrites, and the program that runs it."""

from ndp_rt.export.models.ndpnet.family import NdpNet

FAMILY = NdpNet()
