"""A stranger's path: lines and seconds from a JPEG and a timm network with a weights file to the first picture.

    python benchmarks/first_picture.py --weights mobilenetv2_100_timm_same.pth --photo cat.jpg

Each script is the shortest that the library's own README teaches for this task: load the network, see the photo as it
was trained (224 pixels, mean and std 0.5), explain the most probable class by Grad-CAM, write why.png. Lines are those
of the script, imports included. Seconds are of whole processes, one thread, in turn, medians. Libraries that are not
installed are left out (pip install grad-cam captum torchcam).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import save

NETWORK = 'timm.create_model("mobilenetv2_100", pad_type="same", checkpoint_path="weights.pth").eval()'

INPUTS = f"""model = {NETWORK}
image = transforms.CenterCrop(224)(transforms.Resize(224)(Image.open("cat.jpg").convert("RGB")))
inputs = transforms.Normalize((0.5,) * 3, (0.5,) * 3)(transforms.ToTensor()(image))[None]
"""

COMMAND = (
    "contrex explain cat.jpg --model.name timm:mobilenetv2_100 --model.options pad_type same "
    "--model.weights weights.pth --model.mean 0.5 --model.std 0.5 --output why.png"
)

SCRIPTS = {
    "contrex (Python)": (
        "contrex",
        f"""import contrex
import timm
model = {NETWORK}
contrex.why("cat.jpg", model, mean=(0.5,) * 3, std=(0.5,) * 3).save("why.png")
""",
    ),
    "pytorch-grad-cam": (
        "pytorch_grad_cam",
        f"""import numpy as np
import timm
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from torchvision import transforms
{INPUTS}with GradCAM(model=model, target_layers=[model.bn2]) as cam:
    heatmap = cam(input_tensor=inputs, targets=None)[0]
Image.fromarray(show_cam_on_image(np.float32(image) / 255, heatmap, use_rgb=True)).save("why.png")
""",
    ),
    "captum": (
        "captum",
        f"""import numpy as np
import timm
from captum.attr import LayerAttribution, LayerGradCam, visualization
from PIL import Image
from torchvision import transforms
{INPUTS}target = int(model(inputs).argmax())
heatmap = LayerGradCam(model, model.bn2).attribute(inputs, target)
heatmap = LayerAttribution.interpolate(heatmap, (224, 224))[0].permute(1, 2, 0).detach().numpy()
figure, _ = visualization.visualize_image_attr(heatmap, np.array(image), "blended_heat_map", "all", use_pyplot=False)
figure.savefig("why.png")
""",
    ),
    "torchcam": (
        "torchcam",
        f"""import timm
from PIL import Image
from torchcam.methods import GradCAM
from torchcam.utils import overlay_mask
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image
{INPUTS}with GradCAM(model, target_layer="bn2") as extractor:
    logits = model(inputs)
    heatmap = extractor(logits.squeeze(0).argmax().item(), logits)[0]
overlay_mask(image, to_pil_image(heatmap, mode="F"), alpha=0.5).save("why.png")
""",
    ),
}


def taken(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds on the clock and of the processor until why.png is there."""
    picture, began = folder / "why.png", time.monotonic()
    picture.unlink(missing_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    said = process.stderr.read() if process.stderr else ""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not picture.exists():
        raise SystemExit(f"{command[:3]} gave no picture: {said}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="timm's mobilenetv2_100 with pad_type same")
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="write the figures to benchmarks/results")
    options = parser.parse_args()
    ways = {"contrex (command)": ([sys.executable, "-m", *COMMAND.split()], 1)}
    for name, (module, script) in SCRIPTS.items():
        if importlib.util.find_spec(module) is not None:
            ways[name] = [sys.executable, "-c", script], len(script.splitlines())
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(options.weights, folder / "weights.pth")
        shutil.copy(options.photo, folder / "cat.jpg")
        for number in range(1 + options.rounds):  # the first warms the caches of files and of compiled modules
            for way, (command, _) in ways.items():
                seconds = taken(command, folder)
                if number:
                    times[way].append(seconds)
    figures = {
        way: {
            "lines": ways[way][1],
            "seconds": round(statistics.median(one for one, _ in values), 2),
            "processor seconds": round(statistics.median(one for _, one in values), 2),
        }
        for way, values in times.items()
    }
    save("first_picture", figures, keep=options.keep)


if __name__ == "__main__":
    main()
