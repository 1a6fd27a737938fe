"""Exporting a classifier for use elsewhere: safetensors, torchvision, timm or ONNX.

    RUN/classifier-last.safetensors              the state_dict with plain keys, and what it is in its metadata
    RUN/classifier-last.torchvision.pth          for torchvision.models.get_model(NAME, num_classes=K).load_state_dict
    RUN/classifier-last.timm.safetensors         for timm.create_model(NAME, num_classes=K, checkpoint_path=FILE)
    RUN/classifier-last.onnx                     a graph from pixel values in [0, 1] to logits
    RUN/classifier-last.onnx.json                beside each of them: classes, normalisation, size, and how to load it

Each file is loaded back by the library that it is for, and its logits are compared with the run's; only then it gets
its name. The ONNX graph normalises its input itself, as it may run without any of our code: it takes RGB float32
[N,3,S,S] with values in [0, 1], for any N. The other three files are weights only. Their input is (image - mean) / std,
with the mean and std in the JSON file beside them.

Legend: N images, K classes, S side of the square in pixels.
"""

from contrex.export.exporting import Exported, export_model, export_run
from contrex.export.formats import FORMATS

__all__ = ["FORMATS", "Exported", "export_model", "export_run"]
