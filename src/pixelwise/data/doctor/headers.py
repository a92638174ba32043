"""What the headers and the ends of all files tell, without decoding one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pixelwise.data.dataset import Fault, Record
from pixelwise.data.decode import CHANNELS, Header
from pixelwise.data.doctor.faults import Faults
from pixelwise.data.io import MAX_PIXELS, read_header, read_image
from pixelwise.errors import ImageError

ANY = 1 << 62  # headers are read of any size: what is too large is told with its size
LARGE = 50_000_000
SMALL = 32  # the nets of the house shrink an image up to 32 times
TAIL = 4096
END = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "MPO": b"\xff\xd9"}


@dataclass
class Headers:
    """Headers by file, and what they add up to over the images."""

    of: dict[Path, Header] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)


def read_headers(records: Iterable[Record], threads: int, faults: Faults, max_pixels: int = MAX_PIXELS) -> Headers:
    """Reads every file's header and enters what is wrong with it; `max_pixels` is what may be decoded."""
    records = list(records)
    images = dict.fromkeys(r.image for r in records)
    maps = dict.fromkeys(p for r in records for p in (r.semantic, r.instances) if p)
    headers = Headers()
    paths = (*images, *maps)
    with ThreadPoolExecutor(threads) as pool:
        for path, (header, fault) in zip(paths, pool.map(partial(_read, limit=max_pixels), paths, chunksize=64)):
            if fault is not None:
                faults.add(fault.code, fault.path, fault.detail)
            if header is not None:
                headers.of[path] = header
    for path in images:
        if path in headers.of:
            _image(path, headers, faults)
    _mixtures(images, headers, faults)
    for path in maps:
        if path in headers.of and headers.of[path].format in ("JPEG", "MPO"):
            faults.add("lossy-mask", path, headers.of[path].format)
    for record in records:
        _compare(record, headers, faults)
    return headers


def _read(path: Path, limit: int) -> tuple[Header | None, Fault | None]:
    """The header, and what is wrong as far as header and end of file tell."""
    try:
        header = read_header(path, max_pixels=ANY)
        height, width = header.size
        if height * width > limit:
            return None, Fault("gigantic", path, f"{width:,} x {height:,} pixels")
        if _cut(path, header) or not (CHANNELS.get(header.mode) or header.mode == "npy"):
            read_image(path, max_pixels=limit)  # for the exact reason, if there is one
        return header, None
    except ImageError as error:
        return None, Fault("unreadable", path, error.reason)


def _cut(path: Path, header: Header) -> bool:
    """Whether the end mark is missing from the end of the file."""
    mark = END.get(header.format)
    if mark is None:
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return mark not in file.read()


def _image(path: Path, headers: Headers, faults: Faults) -> None:
    header = headers.of[path]
    height, width = header.size
    headers.sizes[height, width] += 1
    headers.modes[f"{header.mode} {16 if header.dtype == 'uint16' else 8} bit"] += 1
    headers.formats[header.format] += 1
    size = f"{width} x {height} pixels"
    if height * width > LARGE:
        faults.add("large", path, size)
    if header.orientation != 1:
        faults.add("rotated", path, f"orientation {header.orientation}")
    if header.alpha:
        faults.add("alpha", path, header.mode)


def _mixtures(images: Iterable[Path], headers: Headers, faults: Faults) -> None:
    """What is only worth a word when some images have it and others do not."""
    known = [(path, headers.of[path]) for path in images if path in headers.of]
    channels = Counter(header.channels for _, header in known)
    if len(channels) > 1:
        mix = ", ".join(f"{n:,} with {c}" for c, n in sorted(channels.items()))
        faults.add("channels", None, mix)
    if len(headers.formats) > 1:
        faults.add("endings", None, ", ".join(f"{n:,} {name}" for name, n in headers.formats.most_common()))
    wide = [path for path, header in known if header.dtype == "uint16"]
    if len(wide) < len(known):
        for path in wide:
            faults.add("sixteen-bit", path)


def _compare(record: Record, headers: Headers, faults: Faults) -> None:
    """An image is large enough, and a mask has its image's size, after the EXIF rotation."""
    image = headers.of.get(record.image)
    if image is not None and min(image.size) < SMALL:
        trained = record.split not in ("val", "test")  # a single pixel can be scored, but nothing is learnt from it
        code = "one-pixel" if min(image.size) < 2 and trained else "small"
        faults.add(code, record.image, f"{image.size[1]} x {image.size[0]} pixels")
    for path in filter(None, (record.semantic, record.instances)):
        mask = headers.of.get(path)
        if image is None or mask is None or image.size == mask.size:
            continue
        detail = f"{mask.size[1]} x {mask.size[0]}, its image {image.size[1]} x {image.size[0]}"
        if mask.size == image.size[::-1]:
            detail += ": it fits the image before its EXIF rotation" if image.orientation >= 5 else ": it is turned"
        faults.add("size-differs", path, detail)
