"""Good images that a command is given: what is no good photograph is left out, and said."""

from collections.abc import Sequence
from pathlib import Path

from ndp_rt.cli.terminal import complain
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
        complain(f"ndp-rt: {describe_left_out(listing.left_out)}")
    survey = survey_images(listing.files)
    if not survey.kept:
        raise DataError(f"{' '.join(given)}: expected good images, got none. {'. '.join(survey.notes)}. Give others.")
    for note in survey.notes:
        complain(f"ndp-rt: {note}")
    return list(survey.kept)
