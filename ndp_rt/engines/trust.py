"""Whether what lies in the engine cache can have been written by nobody but its user and the administrator.

An engine is code: who writes one decides what passes as good. Hashes beside it say nothing against that.
"""

import os
import stat
from pathlib import Path

from ndp_rt.errors import EngineError
from ndp_rt.files import name_owner

ROOT = 0
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
REMEDY = "Set NDP_RT_CACHE to a folder of your own"


def check_cache(engines_dir: Path) -> None:
    """Check the folders of an engine cache; those that are not there yet pass.

    Raises:
        EngineError: another user owns one, or may write to it.
    """
    for folder in (engines_dir.parent, engines_dir):
        if os.path.lexists(folder):
            _check(folder, may_be_link=True)


def check_entry(folder: Path) -> None:
    """Check the folder of an engine, and what is in it.

    Raises:
        EngineError: another user owns something of it or may write to it, or it is a link.
    """
    for path in (folder, *folder.iterdir()):
        _check(path, may_be_link=False)


def _check(path: Path, *, may_be_link: bool) -> None:
    if not hasattr(os, "geteuid"):  # Windows: a user's folders are theirs
        return
    trusted = (os.geteuid(), ROOT)
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        if not may_be_link:
            raise EngineError(f"{path}: expected no link in the engine cache, got one. {REMEDY}, or remove it.")
        if found.st_uid in trusted:
            found = path.stat()
    if found.st_uid not in trusted:
        raise EngineError(
            f"{path}: expected an engine cache of your own or of root, got one that belongs to {name_owner(path)}. "
            f"{REMEDY}."
        )
    is_sticky_folder = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX  # others change nothing of ours
    if found.st_mode & WRITABLE_BY_OTHERS and not is_sticky_folder:
        raise EngineError(
            f"{path}: expected an engine cache that nobody else may write to, got mode "
            f"{stat.S_IMODE(found.st_mode):04o}. {REMEDY}; or, if you trust what is in it: chmod -R go-w {path}"
        )
