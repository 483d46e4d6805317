"""Networks pretrained on ImageNet, whose features the families `gaussian` and `memseg` compare."""
