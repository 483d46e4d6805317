"""rbfrm: features rebuilt from the reference's patches (eq. 3-5)."""
