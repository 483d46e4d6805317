"""Good images that a command is given: what is no good photograph is left out, and said."""

from collections.abc import Collection, Sequence
from pathlib import Path

from ndp_rt.cli.terminal import complain
from ndp_rt.errors import DataError
from ndp_rt.images.listing import describe_left_out, list_images
from ndp_rt.images.pages import choose_pages
from ndp_rt.images.survey import name_files, survey_images


def list_good_images(given: Sequence[str], trained: Collection[str] = (), page: int | None = None) -> list[Path]:
    """Return the images of folders, files or patterns, without copies, frames of a dead camera and trained ones.

    Args:
        given: what the command line names.
        trained: digests of the images that the model was trained on, whose scores say nothing of others.
        page: which one to take of files with several.

    Raises:
        InputError, ImageFileError: there are none, or one cannot be read.
        DataError: none is left.
    """
    listing = list_images(given)
    if listing.left_out:
        complain(f"ndp-rt: {describe_left_out(listing.left_out)}")
    survey = survey_images(choose_pages(listing.files, page))
    if not survey.kept:
        raise DataError(f"{' '.join(given)}: expected good images, got none. {'. '.join(survey.notes)}. Give others.")
    known = [path for path in survey.kept if survey.digests[path] in set(trained)]
    kept = [path for path in survey.kept if path not in set(known)]
    notes = list(survey.notes)
    if known:
        notes.append(f"{len(known)} image(s) that the model was trained on are left out: {name_files(known)}")
    for note in notes:
        complain(f"ndp-rt: {note}")
    if not kept:
        raise DataError(
            f"{' '.join(given)}: expected good images that the model was not trained on, got none. Give others."
        )
    return kept
