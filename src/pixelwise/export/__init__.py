"""Model files for other runtimes: `pixelwise export MODEL --to onnx|openvino|torch`, held against the net.

What a file takes and gives is JSON in its metadata under "pixelwise": see `export.contract`. An .onnx file of a net
that labels pixels needs nothing but onnxruntime:

    import numpy, onnxruntime
    from PIL import Image
    session = onnxruntime.InferenceSession("model.onnx")
    image = numpy.asarray(Image.open("photo.jpg").convert("RGB"))
    labels = session.run(None, {"images": image[None]})[0][0]
"""

from pixelwise.export.exporting import Exported, export_model
from pixelwise.export.running import run_exported

__all__ = ["Exported", "export_model", "run_exported"]
