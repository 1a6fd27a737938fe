"""Pictures of what a method is trained on: `views/epoch-0001.png` in the run folder, a column per image."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from contrex.data.views.batch import Batch
from contrex.methods import Shown, Step
from contrex.records import write_atomically

FOLDER = "views"
NUM_SHOWN = 10
"""Images on a sheet."""

CELL, GAP, LEFT, TOP = 96, 6, 74, 8
BACKGROUND, INK, RIGHT, WRONG = "#ffffff", "#222222", "#0b7a4b", "#b3261e"


def write_shown(run: Path, step: Step, batch: Batch, epoch: int) -> None:
    """Draw what `step` makes of the first images of a batch in `epoch` (from 0), where there is anything to see."""
    shown = step.shown(batch.part(slice(NUM_SHOWN)))
    if shown is None:
        return
    stream = io.BytesIO()
    contact_sheet(shown).save(stream, "PNG", optimize=True)
    write_atomically(run / FOLDER / f"epoch-{epoch + 1:04d}.png", stream.getvalue())


def sheets(run: Path, *, most: int = 6) -> dict[str, bytes]:
    """The PNG files of a run by what they are called, `most` of them: the first, the last and some between."""
    paths = sorted((run / FOLDER).glob("epoch-*.png"))
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int))
    return {f"epoch {int(paths[i].stem.removeprefix('epoch-'))}": paths[i].read_bytes() for i in chosen}


def contact_sheet(shown: Shown) -> Image.Image:
    """A row for each kind of view with its name, a column per image; where the classifier's verdict on the masked image
    is known, it is framed in green and marked "right", or in red and marked "wrong"."""
    rows = {name: _pictures(images) for name, images in shown.rows.items()}
    num = len(next(iter(rows.values())))
    verdicts = 16 if shown.is_right is not None else 0
    size = (LEFT + num * (CELL + GAP), TOP + len(rows) * (CELL + GAP) + verdicts)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for row, (name, pictures) in enumerate(rows.items()):
        top = TOP + row * (CELL + GAP)
        draw.text((4, top + CELL // 2 - 7), name, fill=INK, font=font)
        for column, picture in enumerate(pictures):
            left = LEFT + column * (CELL + GAP)
            sheet.paste(Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.NEAREST), (left, top))
            if name == "masked" and shown.is_right is not None:
                colour = RIGHT if shown.is_right[column] else WRONG
                draw.rectangle((left - 2, top - 2, left + CELL + 1, top + CELL + 1), outline=colour, width=2)
    for column, is_right in enumerate(shown.is_right or ()):
        place = (LEFT + column * (CELL + GAP) + 2, size[1] - verdicts)
        draw.text(place, "right" if is_right else "wrong", fill=RIGHT if is_right else WRONG, font=font)
    return sheet


def _pictures(images: torch.Tensor) -> list[NDArray[np.uint8]]:
    scaled = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return list(scaled.permute(0, 2, 3, 1).cpu().numpy())
