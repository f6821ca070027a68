"""Images in the user's files: PNG and other pictures, IDX, .npz, tables; without pickle."""

import gzip
import logging
import math
import struct
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from hpo.data import files
from hpo.data.files import FORMATS
from hpo.errors import InputError
from hpo.model.folder import Description

Floats = NDArray[np.float32]

logging.getLogger("PIL").addHandler(logging.NullHandler())  # its exceptions tell the same

# Pixels of an IDX or .npz file: 171,000 images of MNIST's size. Pillow has a limit of its own.
LIMIT = 2**27
GZIP, ZIP, IDX = b"\x1f\x8b", b"PK", b"\0\0\x08"
IDX_HEADER = struct.Struct(">4x3I")  # images, rows, columns
REMEDY = "give a PNG or other picture, an IDX file of images, or an .npz of arrays"
VALUES = "give uint8 of 0 to 255, or floats of 0 to 1"


@dataclass(frozen=True)
class Form:
    """What a network takes: so many features, of the shape (height, width) or (height, width, 3),
    () for rows of a table. pixels: whether they are scaled to 0 … 1."""

    features: int
    shape: tuple[int, ...] = ()
    pixels: bool = True

    @classmethod
    def of(cls, about: Description) -> Self:
        """Older networks name no shape; they take square pictures."""
        side = math.isqrt(about.features)
        square = (side, side) if about.pixels and side**2 == about.features else ()
        return cls(about.features, about.shape or square, about.pixels)


def read_all(paths: Sequence[Path], form: Form, *, invert: bool) -> tuple[list[str], Floats]:
    """Returns the names of all images in the files, and their pixels as by `read`.

    The only image of a file has the file's name, others path[0], path[1] and so on. Raises
    InputError, one line per faulty file, after all files are read.
    """
    names, parts, faults = [], [], []
    for path in paths:
        try:
            pixels = read(path, form, invert=invert)
        except InputError as error:
            faults.append(str(error))
            continue
        several = len(pixels) > 1
        names += [f"{path}[{i}]" if several else str(path) for i in range(len(pixels))]
        parts.append(pixels)
    if faults:
        raise InputError("\n".join(faults))
    return names, np.concatenate(parts)


def read(path: Path, form: Form, *, invert: bool = False) -> Floats:
    """Returns the images in a file, (n, features), n at least 1, from 0 (black) to 1 (white); other
    features as they are.

    Transparent pixels become black. invert: turns dark on light into light on dark; then
    transparent pixels count as white. Raises InputError that names the file.
    """
    if path.name.lower().endswith(TABLES):
        return _rows(path, form)
    try:
        with path.open("rb") as file:
            pixels = _pixels(file, form, ground=255 if invert else 0)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: is no file of images; {REMEDY}") from error
    except Exception as error:  # decoders raise of every kind where a file is damaged
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read ({reason or type(error).__name__}); {REMEDY}"
        ) from error
    if not len(pixels):
        raise InputError(f"{path}: holds no images; {REMEDY}")
    return 1 - pixels if invert else pixels


TABLES = (".csv", ".csv.gz", ".parquet")


def _rows(path: Path, form: Form) -> Floats:
    """Reads the rows of a table. A column named as labels usually are is left out."""
    rows, names = files.features(path)
    if rows.shape[1] != form.features:
        listed = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        raise InputError(
            f"{path}: has {rows.shape[1]} columns of features ({listed}), and the network takes "
            f"{form.features}; give those of its training"
        )
    if not form.pixels:
        return rows.astype(np.float32)
    if rows.min() < 0 or rows.max() > 255:
        raise InputError(f"{path}: holds values that are no pixels of 0 to 255")
    return (rows / 255).astype(np.float32)


def _pixels(file: IO[bytes], form: Form, ground: int) -> Floats:
    """Reads a file by its first bytes, not by its name."""
    start = file.read(4)
    file.seek(0)
    if start.startswith(ZIP):
        return _npz(file, form)
    if start.startswith(IDX):
        return _idx(file, form)
    if start.startswith(GZIP):
        with gzip.open(file) as unpacked:
            return _idx(cast(IO[bytes], unpacked), form)
    return _picture(file, _picture_shape(form), ground).reshape(1, form.features)


def _picture_shape(form: Form) -> tuple[int, ...]:
    if len(form.shape) < 2:
        raise InputError(
            f"is a picture, and the network takes {form.features} numbers, which are no picture; "
            f"give an .npz file with an array of shape (n, {form.features})"
        )
    return form.shape


# --- IDX ---------------------------------------------------------------------------------------


def _idx(stream: IO[bytes], form: Form) -> Floats:
    """Reads an IDX file of images (http://yann.lecun.com/exdb/mnist, "file formats")."""
    header = stream.read(IDX_HEADER.size)
    if not header.startswith(IDX):
        raise InputError(f"holds no IDX file of unsigned bytes; {REMEDY}")
    if header[3:4] != b"\3":
        raise InputError("is an IDX file, but not of images (labels?); give an idx3 file")
    if len(header) < IDX_HEADER.size:
        raise InputError("is cut off; give a whole IDX file")
    count, *shape = IDX_HEADER.unpack(header)
    wanted, features = _picture_shape(form), form.features
    if tuple(shape) != wanted:
        raise InputError(
            f"holds images of {shape[0]} × {shape[1]} pixels, and the network takes "
            f"{' × '.join(map(str, wanted))}; give images of that size"
        )
    _check_count(count * features)
    content = stream.read(count * features + 1)
    if len(content) != count * features:
        raise InputError(f"does not hold the {count:,} images that it announces; give a whole file")
    return _unit(np.frombuffer(content, np.uint8)).reshape(count, features)


def _check_count(pixels: int) -> None:
    if pixels > LIMIT:
        raise InputError(f"announces {pixels:,} pixels, the most is {LIMIT:,}; split it")


def _unit(values: NDArray[Any]) -> Floats:
    """Converts bytes of 0 … 255, or floats of 0 … 1, to floats of 0 … 1."""
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    if not ((values >= 0) & (values <= 1)).all():  # nor is NaN
        raise InputError(f"holds values that are not between 0 and 1; {VALUES}")
    return values.astype(np.float32)


# --- npz ---------------------------------------------------------------------------------------


def _npz(file: IO[bytes], form: Form) -> Floats:
    """Reads all arrays of images in the file's order; skips arrays of other shapes, such as
    labels."""
    with zipfile.ZipFile(file) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        shapes = {info: _announced(archive, info)[0] for info in members}
        suitable = [info for info in members if _fits(shapes[info], form)]
        if not suitable:
            raise InputError(_unsuitable(list(shapes.values()), form))
        _check_count(sum(math.prod(shapes[info]) for info in suitable))
        return np.concatenate([_array(archive, info, form) for info in suitable])


def _announced(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Returns the shape and dtype in an array's header, and the number of bytes after it."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError("is compressed in a way that numpy does not use; write it by numpy.savez")
    with archive.open(info) as member:
        version = npy.read_magic(member)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(member)
        return shape, dtype, info.file_size - member.tell()


def _fits(shape: tuple[int, ...], form: Form) -> bool:
    """Whether the shape is that of one image or of many, flat or not."""
    if len(shape) in (1, 2) and shape[-1] == form.features:
        return True
    size = len(form.shape)
    return size > 1 and len(shape) in (size, size + 1) and shape[-size:] == form.shape


def _unsuitable(shapes: list[tuple[int, ...]], form: Form) -> str:
    square = f" or (n, {', '.join(map(str, form.shape))})" if len(form.shape) > 1 else ""
    listed = ", ".join(map(str, shapes[:5])) + (" …" if len(shapes) > 5 else "")
    wanted = f"(n, {form.features}){square}"
    return f"holds no array of shape {wanted}, but {listed or 'no array'}; give one"


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, form: Form) -> Floats:
    """Reads an array as (n, features), if its header agrees with the archive's."""
    name = info.filename.removesuffix(".npy")
    shape, dtype, held = _announced(archive, info)
    if dtype != np.uint8 and dtype.kind not in ("f" if form.pixels else "fiu"):
        raise InputError(f"array {name!r} is of {dtype.name}; {VALUES}")
    if math.prod(shape) * dtype.itemsize != held:
        raise InputError(f"array {name!r} is damaged: not as long as it announces; save it again")
    with archive.open(info) as member:
        array = npy.read_array(member, allow_pickle=False)
    if form.pixels:
        return _unit(array).reshape(-1, form.features)
    if not np.isfinite(array).all():
        raise InputError(f"array {name!r} holds values that are not finite")
    return array.astype(np.float32).reshape(-1, form.features)


# --- pictures ----------------------------------------------------------------------------------


def _picture(file: IO[bytes], shape: tuple[int, ...], ground: int) -> Floats:
    """Reads a picture of a shape, in grey or in colours, resized with antialiasing.

    Of an animation, the first frame. Turned upright if the camera noted its orientation.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=FORMATS) as image:
                upright = ImageOps.exif_transpose(image)
                pixels = _grey(upright, ground) if len(shape) == 2 else _coloured(upright, ground)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise InputError("is a picture of too many pixels; scale it down") from error
    if pixels.shape == shape:
        return pixels
    # Bilinear keeps within the bounds; Pillow widens it to all pixels that a new one covers.
    colours = [pixels] if len(shape) == 2 else list(np.moveaxis(pixels, 2, 0))
    size, method = (shape[1], shape[0]), Image.Resampling.BILINEAR
    resized = [np.array(Image.fromarray(colour).resize(size, method)) for colour in colours]
    return resized[0] if len(shape) == 2 else np.stack(resized, axis=2)


def _coloured(image: Image.Image, ground: int) -> Floats:
    """Returns (height, width, 3); a grey picture has three equal colours."""
    if image.mode == "F" or image.mode.startswith("I"):
        return np.repeat(_grey(image, ground)[:, :, None], 3, axis=2)
    below = Image.new("RGBA", image.size, (ground, ground, ground, 255))
    return _unit(np.array(Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")))


def _grey(image: Image.Image, ground: int) -> Floats:
    if image.mode == "F":
        return _unit(np.array(image))
    if image.mode.startswith("I"):
        return _deep_grey(image, ground)
    coloured = image.convert("RGBA")
    below = Image.new("RGBA", image.size, (ground, ground, ground, 255))
    return _unit(np.array(Image.alpha_composite(below, coloured).convert("L")))


def _deep_grey(image: Image.Image, ground: int) -> Floats:
    """Reads 16 bits per pixel, which Pillow keeps in the modes I;16 and I."""
    levels = np.array(image)
    if levels.min() < 0 or levels.max() > 65_535:
        raise InputError("is a picture of more than 16 bits a pixel; save it with 8 or 16")
    grey = levels.astype(np.float32) / np.float32(65_535)
    grey[levels == image.info.get("transparency")] = ground / 255
    return grey
