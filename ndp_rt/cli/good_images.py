"""Good images that a command is given: what is no good photograph is left out, and said."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ndp_rt.errors import DataError
from ndp_rt.images.listing import describe_left_out, list_images
from ndp_rt.images.survey import survey_images


def list_good_images(given: Sequence[str]) -> list[Path]:
    """Return the images of folders, files or patterns, without copies and frames of a dead camera.

    Raises:
        InputError, ImageFileError: there are none, or one cannot be read.
        DataError: none is left.
    """
    listing = list_images(given)
    if listing.left_out:
        print(f"ndp-rt: {describe_left_out(listing.left_out)}", file=sys.stderr, flush=True)
    survey = survey_images(listing.files)
    if not survey.kept:
        raise DataError(f"{' '.join(given)}: expected good images, got none. {'. '.join(survey.notes)}. Give others.")
    for note in survey.notes:
        print(f"ndp-rt: {note}", file=sys.stderr, flush=True)
    return list(survey.kept)
