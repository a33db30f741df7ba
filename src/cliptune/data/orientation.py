"""Which way up a photo belongs, by its EXIF data or XMP, and turning it so."""

from __future__ import annotations

from PIL import ExifTags, Image

from cliptune.errors import ImageError

UPRIGHT = 1
# EXIF 2.32, 4.6.4: what has to be done to an image stored that way.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """1 to 8; 1 (upright) where nothing, or nothing that EXIF defines, is said.

    Only this tag is looked at: others may be of a wrong type, which says nothing about the photo.
    Raises `ImageError` where the block of tags itself cannot be read.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
        return int(value) if value in _TURNS else UPRIGHT  # a number of any type
    except MemoryError:
        raise
    except Exception as error:  # parsed from hostile bytes
        raise ImageError(
            f"damaged EXIF data ({error}): which way up it belongs cannot be told. Save it anew "
            "without EXIF data, upright"
        ) from None


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """`image`, stored in that `orientation`, as it belongs; itself where that is upright."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def forget_unreadable_tags(image: Image.Image) -> None:
    """Drop what Pillow would stumble over in a TIFF that it is about to decode and to turn."""
    if not isinstance(image.info.get("xmp", b""), bytes):
        del image.info["xmp"]  # of a wrong type; Pillow looks for text in it
    if hasattr(image, "tag_v2"):
        tags = image.getexif()
        for folder in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            try:
                tags.get_ifd(folder)
            except Exception:  # it points out of the file
                del tags[folder]
