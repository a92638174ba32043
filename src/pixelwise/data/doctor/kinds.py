"""The faults the doctor knows, as a table: how bad, how they are said, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Kind:
    """A kind of fault: `one` or `many` (with {n}) begin the message; {root}, {file} and the like are filled in."""

    severity: Severity
    one: str
    many: str
    remedy: str
    command: str = ""


KINDS = {
    "layout": Kind(
        "error",
        "the data set does not open",
        "{n} reasons why the data set does not open",
        "",
    ),
    "same-name": Kind(
        "error",
        "1 file with the name of another but for the ending",
        "{n} files with the names of others but for the ending",
        "Rename one of them, or remove it.",
        "rm {file}",
    ),
    "split-list": Kind(
        "error",
        "1 wrong line in the split lists",
        "{n} wrong lines in the split lists",
        "Remove these lines, or add the images they name.",
    ),
    "class-table": Kind(
        "error",
        "the class table is faulty",
        "{n} faults in the class table",
        "Each line is `index name r g b`, then perhaps thing, stuff, void or nothing.",
    ),
    "unreadable": Kind(
        "error",
        "1 file that cannot be read",
        "{n} files that cannot be read",
        "Copy them again from their source, or remove each with its mask.",
        "rm {file}",
    ),
    "gigantic": Kind(
        "error",
        "1 file above the limit of pixels",
        "{n} files above the limit of pixels",
        "Cut them into tiles; a file that can be trusted is read with the option max_pixels=NUMBER.",
    ),
    "image-without-mask": Kind(
        "error",
        "1 image without a mask",
        "{n} images without a mask",
        "Add the mask, or move the image out.",
        "mkdir -p {aside} && mv {file} {aside}/",
    ),
    "size-differs": Kind(
        "error",
        "1 mask of another size than its image",
        "{n} masks of another size than their image",
        "Export image and mask at one size; never scale a mask with smoothing.",
    ),
    "lossy-mask": Kind(
        "error",
        "1 mask in lossy compression, which changes ids at every edge",
        "{n} masks in lossy compression, which changes ids at every edge",
        "Export them again as PNG; converting the JPEG does not bring the ids back.",
    ),
    "colour-mask": Kind(
        "error",
        "1 colour mask, and nothing says which colour is which class",
        "{n} colour masks, and nothing says which colour is which class",
        "Write {root}/classes.txt with a line `index name r g b` for each class.",
    ),
    "unknown-colours": Kind(
        "error",
        "1 mask with colours that the class table does not know",
        "{n} masks with colours that the class table does not know",
        "Add the colours to the class table (with the word void where they mean nothing), or export without smoothing.",
    ),
    "unknown-ids": Kind(
        "error",
        "1 mask with ids that the class table does not know",
        "{n} masks with ids that the class table does not know",
        "Add each id to the class table, with a name, or as void.",
        "echo {id} NAME >> {table}",
    ),
    "truth": Kind(
        "error",
        "1 mask that contradicts itself or the class table",
        "{n} masks that contradict themselves or the class table",
        "Mend what the line says.",
    ),
    "no-class": Kind(
        "error",
        "the classes cannot be found",
        "{n} reasons why the classes cannot be found",
        "Write {root}/classes.txt with lines `index name`.",
    ),
    "one-pixel": Kind(
        "error",
        "1 image of a single pixel in height or width",
        "{n} images of a single pixel in height or width",
        "Remove each with its mask.",
        "rm {file}",
    ),
    "mask-without-image": Kind(
        "warning",
        "1 mask without an image, left out",
        "{n} masks without an image, left out",
        "Add the image, or remove the mask.",
        "rm {file}",
    ),
    "split-leak": Kind(
        "warning",
        "1 image in two splits: its score says nothing about new images",
        "{n} images in two splits: scores say nothing about new images",
        "Keep each image in one split only.",
    ),
    "small": Kind(
        "warning",
        "1 image below 32 pixels in height or width",
        "{n} images below 32 pixels in height or width",
        "Nets shrink images 16 or 32 times: enlarge them, or leave them out.",
    ),
    "rotated": Kind(
        "warning",
        "1 image with an EXIF rotation, which is applied when it is read",
        "{n} images with an EXIF rotation, which is applied when they are read",
        "Look whether the mask fits the turned image; ImageMagick makes the turn plain.",
        "mogrify -auto-orient {file}",
    ),
    "all-void": Kind(
        "warning",
        "1 mask in which everything is void: nothing is learnt from it",
        "{n} masks in which everything is void: nothing is learnt from them",
        "Label them, or leave them out.",
    ),
    "absent-class": Kind(
        "warning",
        "1 class that never occurs in the training split",
        "{n} classes that never occur in the training split",
        "Add images that show them, or take them out of the class table.",
    ),
    "imbalance": Kind(
        "warning",
        "the classes differ strongly in size",
        "the classes differ strongly in size",
        "Weigh rare classes, and draw their images more often.",
        "pixelwise train {root} --class-weights median --dataset.balanced",
    ),
    "no-train": Kind(
        "error",
        "there is no split 'train' with masks to train on",
        "there is no split 'train' with masks to train on",
        "Write {root}/splits/train.txt, one name a line, or name another split by --dataset.train.",
    ),
    "no-split": Kind(
        "note",
        "a split is missing",
        "{n} splits are missing",
        "Write {root}/splits/val.txt, one name a line, and take these names out of train.txt.",
    ),
    "duplicate": Kind(
        "note",
        "1 image that is there twice in its split",
        "{n} images that are there twice in their split",
        "Remove one of each: they count double.",
    ),
    "absent-elsewhere": Kind(
        "note",
        "1 class that never occurs in a split that is scored",
        "{n} classes that never occur in a split that is scored",
        "Its score there is left out of every mean.",
    ),
    "empty-mask": Kind(
        "note",
        "1 mask that shows nothing but the background",
        "{n} masks that show nothing but the background",
        "Fine where the image shows none; else label it.",
    ),
    "no-object": Kind(
        "note",
        "1 image without any object",
        "{n} images without any object",
        "Fine where there is none; else label it.",
    ),
    "channels": Kind(
        "note",
        "images differ in channels",
        "images differ in channels",
        "All are read with the most channels, grey ones repeated.",
    ),
    "alpha": Kind(
        "note",
        "1 image with an alpha channel, which is dropped",
        "{n} images with an alpha channel, which is dropped",
        "open_data(..., channels=4) keeps it.",
    ),
    "sixteen-bit": Kind(
        "note",
        "1 image of 16 bits among others of 8",
        "{n} images of 16 bits among others of 8",
        "All are read as 16 bit, 8-bit values times 257.",
    ),
    "endings": Kind(
        "note",
        "images differ in file format",
        "images differ in file format",
        "",
    ),
    "large": Kind(
        "note",
        "1 image above 50 million pixels",
        "{n} images above 50 million pixels",
        "Training reads the whole image for each crop: tiles are faster.",
    ),
}
