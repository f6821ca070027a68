"""The one reader of files: tables, pictures, .npz and IDX; nothing is unpickled.

It gives values as they stand in the file. What they mean is the schema's matter.
"""

import codecs
import csv
import gzip
import io
import logging
import math
import re
import shlex
import struct
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.lib import format as npy

from hpo.data.schema import Array, brief_names, white_level
from hpo.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

T = TypeVar("T")

logging.getLogger("PIL").addHandler(logging.NullHandler())  # its exceptions tell the same

TABLES = (".csv", ".csv.gz", ".parquet")
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # as Pillow calls them
REMEDY = "give a PNG or other picture, an IDX file of images, an .npz of arrays or a table"
GZIP, ZIP, IDX = b"\x1f\x8b", b"PK", b"\0\0"
IDX_TYPES: dict[int, Any] = {8: np.dtype(np.uint8), 12: np.dtype(">i4")}
MOST = 2**30  # numbers of an array; a damaged header announces any
MOST_UNPACKED = 2**32  # bytes of an .npz file that is smaller: a zip bomb has more
MOST_ARRAYS = 10_000  # in an .npz file; reading their headers takes a second
HEADER = 2**16  # bytes that may hold an array's header; numpy takes 10,000 characters
UNNAMED = re.compile(r"Unnamed: \d+(_level_\d+)?")
MARK = "="  # before a label, or pandas would take "NA" as missing
FIRST_ROWS = 1_000
BLANKS = r"\s+"  # the separator of columns that stand under each other
SPELLINGS = ("", "?", "-", "--", ".", "na", "n/a", "#n/a", "nan", "<na>", "null", "none")
GAPS = tuple(dict.fromkeys(s for gap in SPELLINGS for s in (gap, gap.upper(), gap.title())))


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Puts the name of a file before an InputError that does not begin with it."""
    try:
        yield
    except InputError as error:
        said = str(error)
        raise InputError(said if said.startswith(str(path)) else f"{path}: {said}") from error


@contextmanager
def named_errors(path: Path, remedy: str) -> Iterator[None]:
    """Turns what goes wrong while a file is read into an InputError that names it."""
    with naming(path):
        try:
            if path.exists() and not path.is_file():
                raise OSError(0, "Is a directory" if path.is_dir() else "no regular file")
            yield
        except InputError:
            raise
        except Exception as error:  # decoders raise of every kind where a file is damaged
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            said = reason or type(error).__name__
            raise InputError(f"cannot be read ({said}); {remedy}") from error


def each(read: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """Returns what is read of each item. Raises InputError, a line for each faulty one."""
    found, faults = [], []
    for item in items:
        try:
            found.append(read(item))
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    return found


def is_table(path: Path) -> bool:
    return path.name.lower().endswith(TABLES)


def start_of(path: Path) -> bytes:
    """Returns the first two bytes, which tell GZIP, ZIP and IDX."""
    with path.open("rb") as file:
        return file.read(2)


# --- tables ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of which only the beginning is read."""

    path: Path
    first: tuple[str, ...]  # the cells of the first row
    second: int = 0  # how many cells the second row has
    separator: str = ","  # "\\s+" for blanks
    encoding: str = "utf-8-sig"
    stored: "pd.DataFrame | None" = None  # what a Parquet file holds; it always has a header
    index: str = ""  # the name of the index of a Parquet file, if it has one

    def numbers(self) -> list[bool]:
        """Returns which cells of the first row are numbers, as a header's are not."""
        return [self.stored is None and is_number(cell) for cell in self.first]

    def names(self, *, header: bool) -> list[str]:
        """Returns the names of the columns; without a header these are their positions."""
        return list(self.first) if header else list(map(str, range(len(self.first))))

    def codes(self, names: Sequence[str]) -> set[str]:
        """Returns the columns whose first cells have zeros in front, which numbers would lose."""
        import pandas as pd

        if self.stored is not None:
            return set()  # whose text stays text
        frame = pd.read_csv(
            self.path, sep=self.separator, header=None, names=range(len(names)), dtype=str,
            encoding=self.encoding, skipinitialspace=True, nrows=FIRST_ROWS, on_bad_lines="skip",
        )  # fmt: skip
        found = (frame[n].str.fullmatch(r"\s*0\d+\s*", na=False).any() for n in frame)
        return {name for name, some in zip(names, found, strict=True) if some}

    def read(
        self, *, header: bool, names: Sequence[str], label: str, texts: Collection[str] = ()
    ) -> "pd.DataFrame":
        """Returns the rows, with the columns' names; NaN for a gap.

        header: whether the first row is one.
        names: of all columns, in the file's order.
        label: the column with the labels, which are read as text; empty: none.
        texts: further columns that are read as text.
        """
        import pandas as pd

        if self.stored is not None:
            return self.stored.set_axis(list(names), axis=1)
        if self.second > len(names):  # pandas would take the first column as the index
            raise InputError(
                f"its first line has {len(names)} fields, and the next one {self.second}; give "
                "every column a name, and no separator at the end of a line"
            )
        place = list(names).index(label) if label in names else None
        version = tuple(map(int, pd.__version__.split(".")[:2]))
        exact: Any = {} if version >= (3, 1) else {"float_precision": "round_trip"}
        try:
            frame = pd.read_csv(
                self.path, sep=self.separator, header=0 if header else None,
                names=range(len(names)), converters={} if place is None else {place: MARK.__add__},
                dtype={i: str for i, n in enumerate(names) if n in texts and i != place},
                na_values=list(GAPS), skipinitialspace=True, encoding=self.encoding,
                low_memory=False, **exact,
            )  # fmt: skip
        except pd.errors.EmptyDataError as error:
            raise InputError("holds 0 rows; give some") from error
        except UnicodeDecodeError as error:
            raise _not_utf8(self.path, error) from error
        _check_lengths(self, frame, len(names))
        if place is not None and len(frame):
            frame[place] = frame[place].str.removeprefix(MARK).str.strip()
        if not header and any(_may_be_header(frame[n]) for n in frame):
            raise InputError(
                "has a header, and its columns are asked for by number; give the label's name, or "
                f"leave out the header; there are {brief_names(self.first)}"
            )
        return frame.set_axis(list(names), axis=1)


def _check_lengths(table: Table, frame: "pd.DataFrame", fields: int) -> None:
    """Raises InputError for a row with fewer cells than columns, which pandas fills with gaps."""
    last = frame.iloc[:, -1]
    if not (last.isna() | (last.astype(str).isin(("", MARK)))).any():
        return
    opener: Any = gzip.open if table.path.name.lower().endswith(".gz") else open
    with opener(table.path, "rt", encoding=table.encoding, newline="") as lines:
        for row, cells in enumerate(_rows(lines, table.separator)):
            if any(cells) and len(cells) < fields:
                raise InputError(
                    f"line {row + 1} has {len(cells)} cells, and there are {fields} columns; give "
                    'each row all cells, "?" for a gap'
                )


def _not_utf8(path: Path, error: UnicodeDecodeError) -> InputError:
    byte = error.object[error.start]
    return InputError(
        f"is not UTF-8 text (byte 0x{byte:02x}); save it as UTF-8, such as by: iconv -f "
        f"WINDOWS-1252 -t UTF-8 {path.name} > new-{path.name}"
    )


def _may_be_header(column: "pd.Series") -> bool:
    """Whether the first cell of a column is text, and all cells below are numbers."""
    from pandas import to_numeric

    if column.dtype.kind in "iufb" or len(column) < 2:
        return False
    first = str(column.iloc[0])
    below = to_numeric(column.iloc[1:], errors="coerce")
    return first not in GAPS and not is_number(first) and bool(below.notna().all())


def open_table(path: Path) -> Table:
    """Reads the first row of a CSV file, or a Parquet file."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _open_parquet(path)
    opener: Any = gzip.open if name.endswith(".gz") else open
    with opener(path, "rb") as file:
        marked = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if marked else "utf-8-sig"
    try:
        with opener(path, "rt", encoding=encoding, newline="") as lines:
            start = next((line for line in lines if line.strip()), "")
            below = next((line for line in lines if line.strip()), "")
            separator = _separator(start, below)
            first, second = _first_rows(chain([start, below], lines), separator)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    if not first:
        raise InputError("holds 0 rows; give some")
    return Table(
        path=path, first=tuple(map(_name, first)), second=second, separator=separator,
        encoding=encoding,
    )  # fmt: skip


def _first_rows(lines: Iterator[str], separator: str) -> tuple[list[str], int]:
    """Returns the cells of the first row, and how many the second one has."""
    rows = _rows(lines, separator)
    return next(rows, []), next((len(row) for row in rows if row), 0)


def _rows(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    if separator == BLANKS:
        return (shlex.split(line) for line in lines)
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


def _separator(start: str, second: str) -> str:
    """Returns what parts the cells of two lines: what gives both as many, and the most."""

    def cells(separator: str) -> tuple[bool, int]:
        lines = (csv.reader([line], delimiter=separator) for line in (start, second))
        counts = [len(next(line, [])) for line in lines]
        return counts[0] == counts[1] or not second.strip(), counts[0]

    best = max(",;\t|", key=cells)
    wide = best == "\t" and start.count("\t") == 1 and "  " in start.strip()
    if start.count(best) and not wide:
        return best
    return BLANKS if len(start.split()) > 1 else best


def _open_parquet(path: Path) -> Table:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise InputError(
            "reading Parquet needs pyarrow: pip install 'hpo-studies[parquet]'"
        ) from error
    return of_frame(path, frame)


def of_frame(path: Path, frame: "pd.DataFrame") -> Table:
    """Returns a frame as a table. path: what errors call it."""
    index = ", ".join(str(name) for name in frame.index.names if name is not None)
    names = tuple(_name(str(name)) for name in frame.columns)
    return Table(path=path, first=names, stored=frame.reset_index(drop=True), index=index)


def _name(cell: str) -> str:
    """Returns a column's name; empty for one that pandas made up."""
    return "" if UNNAMED.fullmatch(cell.strip()) else cell.strip()


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell not in GAPS


# --- pictures ----------------------------------------------------------------------------------


def picture(file: Path | IO[bytes], ground: int = 0) -> Array:
    """Returns a picture's pixels, upright: (height, width) if it is grey, else (height, width, 3).

    They are bytes, uint16 where the file has 16 bits a pixel, or floats of 0 … 1. Transparent
    pixels lie on `ground`, 0 (black) or 255. Of an animation, the first frame.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=FORMATS) as image:
                return _pixels(ImageOps.exif_transpose(image), ground)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise InputError("is a picture of too many pixels; scale it down") from error
        except UnidentifiedImageError as error:
            raise InputError(f"is no file of images; {REMEDY}") from error


def _pixels(image: "Image", ground: int) -> Array:
    from PIL import Image

    if image.mode == "F":
        levels = np.array(image)
        if not ((levels >= 0) & (levels <= 1)).all():
            raise InputError("holds values that are not between 0 and 1; save it with 8 bits")
        return levels
    if image.mode.startswith("I"):
        return _deep_grey(image, ground)
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        below = Image.new("RGBA", image.size, (ground, ground, ground, 255))
        image = Image.alpha_composite(below, image.convert("RGBA"))
    return np.array(image.convert("L" if grey else "RGB"))


def _deep_grey(image: "Image", ground: int) -> Array:
    """Reads 16 bits a pixel, which Pillow keeps in the modes I;16 and I."""
    levels = np.array(image)
    if levels.min() < 0 or levels.max() > 65_535:
        raise InputError("is a picture of more than 16 bits a pixel; save it with 8 or 16")
    if image.mode == "I" and 0 < levels.max() <= 255:
        raise InputError("has 32 bits a pixel and values of 8 bits; save it with 8 or 16 bits")
    grey = levels.astype(np.uint16)
    grey[levels == image.info.get("transparency")] = 257 * ground
    return grey


def of_one_kind(pictures: Sequence[Array]) -> Array:
    """Stacks pictures: with colours if one has them, with 16 bits if one has them. That changes no
    brightness: 257 × 255 is 65,535."""
    kinds = {picture.dtype for picture in pictures}
    if len(kinds) > 1 and any(kind.kind == "f" for kind in kinds):
        pictures = [_unit(picture) for picture in pictures]
    elif len(kinds) > 1:
        pictures = [p * np.uint16(257) if p.dtype == np.uint8 else p for p in pictures]
    coloured = any(picture.ndim == 3 for picture in pictures)
    return np.stack([_coloured(picture) if coloured else picture for picture in pictures])


def _coloured(grey: Array) -> Array:
    return grey if grey.ndim == 3 else np.repeat(grey[:, :, None], 3, axis=2)


def _unit(x: Array) -> Array:
    return np.divide(x, white_level(x), dtype=np.float32)


def fitted(pixels: Array, shape: Sequence[int]) -> Array:
    """Returns a picture in another shape: in grey or in colours, resized with antialiasing."""
    from PIL import Image

    if pixels.ndim == 3 and len(shape) == 2:
        pixels = np.array(Image.fromarray(pixels).convert("L"))
    if pixels.ndim == 2 and len(shape) == 3:
        pixels = _coloured(pixels)
    if pixels.shape == tuple(shape):
        return pixels
    # Bilinear keeps within the bounds; Pillow widens it to all pixels that a new one covers.
    size, method = (shape[1], shape[0]), Image.Resampling.BILINEAR
    planes = np.moveaxis(np.atleast_3d(pixels), 2, 0)
    resized = [np.array(Image.fromarray(_unit(plane)).resize(size, method)) for plane in planes]
    return np.stack(resized, axis=2).reshape(shape)


# --- IDX ---------------------------------------------------------------------------------------


def idx(stream: IO[bytes]) -> Array:
    """Reads an IDX file (http://yann.lecun.com/exdb/mnist, "file formats")."""
    header = stream.read(4)
    if not header.startswith(IDX) or len(header) < 4 or header[2] not in IDX_TYPES:
        raise InputError("holds no IDX file of bytes or 32-bit integers; give one")
    kind, sizes = IDX_TYPES[header[2]], stream.read(4 * header[3])
    if len(sizes) < 4 * header[3]:
        raise InputError("is cut off; give a whole IDX file")
    shape = struct.unpack(f">{header[3]}I", sizes)
    _check_count(shape)
    held = math.prod(shape) * kind.itemsize
    content = stream.read(held + 1)
    if len(content) != held:
        raise InputError(
            f"does not hold the {shape[0] if shape else 0:,} examples that it announces; give a "
            "whole file"
        )
    return np.frombuffer(content, kind).reshape(shape)


def _check_count(shape: Sequence[int]) -> None:
    if (announced := math.prod(shape)) > MOST:
        raise InputError(f"announces {announced:,} numbers, the most is {MOST:,}; split it")


# --- npz ---------------------------------------------------------------------------------------


class Npz:
    """The arrays of an .npz file. shapes: as their headers announce them, by name. An array is read
    if its header agrees with the archive's."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        if len(members) > MOST_ARRAYS:
            raise InputError(
                f"holds {len(members):,} arrays, the most is {MOST_ARRAYS:,}; stack them"
            )
        self._archive, self._room = archive, max(size, MOST_UNPACKED)
        self._members = {info.filename.removesuffix(".npy"): info for info in members}
        self._headers = {name: self._header(info) for name, info in self._members.items()}
        self.shapes = {name: shape for name, (shape, _, _) in self._headers.items()}

    def _header(self, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        """Returns the shape and dtype in an array's header, and the number of bytes after it."""
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                "is compressed in a way that numpy does not use; write it by numpy.savez"
            )
        with self._archive.open(info) as member:
            start = io.BytesIO(member.read(HEADER))
        version = npy.read_magic(start)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(start)
        return shape, dtype, info.file_size - start.tell()

    def read(self, name: str) -> Array:
        """Returns an array. Raises InputError for Python objects and for a damaged one."""
        shape, dtype, held = self._headers[name]
        if dtype.hasobject:
            raise InputError(
                f"array {name!r} is of object: it holds Python objects, which are never unpickled; "
                "save numbers or text"
            )
        _check_count(shape)
        if math.prod(shape) * dtype.itemsize != held:
            raise InputError(
                f"array {name!r} is damaged: not as long as it announces; save it again"
            )
        self._room -= held
        if self._room < 0:
            raise InputError("unpacks to more than 4 GiB; write it by numpy.savez, unpacked")
        with self._archive.open(self._members[name]) as member:
            array: Array = npy.read_array(member, allow_pickle=False)
        return array


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """Opens an .npz file."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise InputError("is no .npz file or damaged; write it by numpy.savez")
        with zipfile.ZipFile(file) as archive:
            yield Npz(archive, path.stat().st_size)


def channels_last(x: Array) -> Array:
    """Returns pictures (N, height, width) or (N, height, width, 3) of arrays that may have the
    colours first, or one colour; other arrays as they are. Raises InputError where both the second
    and the last dimension may be the colours."""
    if x.ndim != 4:
        return x
    first, last = x.shape[1] in (1, 3), x.shape[3] in (1, 3)
    if first and last and 3 in (x.shape[1], x.shape[3]):
        raise InputError(
            f"has pictures of shape {x.shape[1:]}, and the colours may be the first or the last "
            "dimension; give (N, height, width) or (N, height, width, 3)"
        )
    x = np.ascontiguousarray(np.moveaxis(x, 1, 3)) if first and not last else x
    return x[..., 0] if x.shape[3] == 1 else x


def labels_of_array(y: Array) -> Array:
    """Returns labels (N,) of an array: whole numbers or text."""
    if y.dtype.kind not in "uifbUS":
        raise InputError(f"labels are of {y.dtype.name}; give whole numbers or text")
    y = y.ravel() if y.ndim == 2 and y.shape[1] == 1 else y
    y = np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y
    return y.astype(np.int64) if y.dtype.kind == "b" else y


def holds_examples(held: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether an array of the shape `held` is one example or many, flat or not, with the colours
    first or last."""
    size, held, shape = len(shape), tuple(held), tuple(shape)
    whole = len(held) in (size, size + 1) and held[-size:] == shape
    flat = len(held) in (1, 2) and held[-1] == math.prod(shape)
    other = {2: ((1, *shape), (*shape, 1)), 3: ((*shape[2:], *shape[:2]),)}.get(size, ())
    return whole or flat or (len(held) in (3, 4) and held[-3:] in other)


def as_examples(x: Array, shape: Sequence[int]) -> Array:
    """Returns an array that holds examples as (n, *shape)."""
    colours_first = len(shape) == 3 and x.ndim > 2 and x.shape[-3:] != tuple(shape)
    if colours_first:
        return np.moveaxis(x.reshape(-1, *x.shape[-3:]), 1, 3)
    return x.reshape(-1, *shape)
