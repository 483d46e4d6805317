"""File formats of images, a module each: what the header says is checked before a decoder sees the pixels."""
