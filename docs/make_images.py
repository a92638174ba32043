"""Draw the pictures of the README: `python docs/make_images.py` writes `docs/images/`."""

from pathlib import Path

import cv2

from pixelwise.data.streets import contact_sheet

SEED = 2  # any would do; this one shows every weather


def main() -> None:
    """Twelve drawn streets, each above its truth; JPEG, since grain makes a PNG of them ten times as large."""
    folder = Path(__file__).parent / "images"
    folder.mkdir(exist_ok=True)
    sheet = contact_sheet(SEED, 3, 4, (192, 384))
    path = folder / "streets.jpg"
    cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    print(f"{path}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
