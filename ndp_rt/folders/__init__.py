"""Folders of image files through an inspector: what is there now, and what comes."""
