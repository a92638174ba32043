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
    "annotation": Kind(
        "error",
        "1 image or file with an annotation that cannot be read",
        "{n} images or files with annotations that cannot be read",
        "Mend or remove the annotation that the line names.",
    ),
    "image-missing": Kind(
        "error",
        "1 image that the annotations list and that is not there",
        "{n} images that the annotations list and that are not there",
        "Add the images; or leave them out by the format's option missing=skip.",
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
    "orphans": Kind(
        "warning",
        "annotations of images that are not listed, left out as pycocotools and detectron2 do",
        "{n} files with annotations of images that are not listed, left out as pycocotools and detectron2 do",
        "List the images, or remove the annotations.",
    ),
    "duplicate-id": Kind(
        "warning",
        "annotation ids that occur more than once: all are read here, detectron2 refuses them",
        "{n} files with annotation ids that occur more than once: all are read here, detectron2 refuses them",
        "Number the annotations anew; each id once in a file.",
    ),
    "image-unlisted": Kind(
        "warning",
        "1 image that no annotation file lists, left out",
        "{n} images that no annotation file lists, left out",
        "List them (without annotations where they show no object), or move them out.",
    ),
    "empty-box": Kind(
        "warning",
        "1 image with boxes of zero area: the box around the pixels counts; detectron2 and torchvision drop such",
        "{n} images with boxes of zero area: the box around the pixels counts; detectron2 and torchvision drop such",
        "Remove the annotations, or draw them anew.",
    ),
    "short-polygon": Kind(
        "warning",
        "1 image with polygons of fewer than three points, left out as detectron2 does",
        "{n} images with polygons of fewer than three points, left out as detectron2 does",
        "Remove them, or draw them anew; pycocotools fails on them.",
    ),
    "no-pixel": Kind(
        "warning",
        "1 image with objects that own no pixel: nothing is learnt from them, and scoring counts them as missed",
        "{n} images with objects that own no pixel: nothing is learnt from them, and scoring counts them as missed",
        "Remove them, or draw them larger; detectron2 drops them from training.",
    ),
    "area-differs": Kind(
        "warning",
        "1 panoptic map whose table gives other areas than the pixels have",
        "{n} panoptic maps whose table gives other areas than the pixels have",
        "Look whether map and table are of one export; scores count pixels.",
    ),
    "outside": Kind(
        "warning",
        "1 image with polygons that leave it: the part inside counts",
        "{n} images with polygons that leave it: the part inside counts",
        "Look whether image and annotation belong together.",
    ),
    "self-crossing": Kind(
        "note",
        "1 image with polygons that cross themselves: crossing parts count by the format's rule",
        "{n} images with polygons that cross themselves: crossing parts count by the format's rule",
        "Draw them anew where the picture shows holes that are not there.",
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
        "Write {root}/splits/train.txt and val.txt, one name a line, each name in one of them.",
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
    "overlaps": Kind(
        "note",
        "1 image with objects that overlap",
        "{n} images with objects that overlap",
        "Instance segmentation keeps both; in panoptic truth the smaller or earlier one shows.",
    ),
    "joined": Kind(
        "note",
        "class maps and instance maps were joined, and had to be brought into line",
        "class maps and instance maps were joined, and had to be brought into line",
        "Fine where these are few; else look at the maps one over the other.",
    ),
    "pieces": Kind(
        "note",
        "1 image with objects in several pieces",
        "{n} images with objects in several pieces",
        "Fine where something stands in front of them; else give each piece its own id.",
    ),
    "many-objects": Kind(
        "note",
        "1 image with more objects than COCO's AP looks at, 100",
        "{n} images with more objects than COCO's AP looks at, 100",
        "Score them by detections that are not cut off at 100.",
    ),
    "boxes-only": Kind(
        "note",
        "1 image with objects that have a box and no outline",
        "{n} images with objects that have a box and no outline",
        "What lies in such a box is taken for unknown.",
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
