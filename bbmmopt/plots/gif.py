"""GifWriter: frames into a GIF file."""

from __future__ import annotations

from io import BytesIO
from os import PathLike, fspath
from typing import Any

from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure
from PIL import Image


class GifWriter(PillowWriter):
    """Writes an animation as a GIF that stays at its end for a while.

    As it is, it gives all frames the same time, and lets Pillow choose their 256 colours by
    how much of a frame has them: the few marks of a picture would lose theirs to its background.

    Args:
        fps: Frames per second.
        stays: Seconds that the last one stays.
    """

    def __init__(self, fps: float, stays: float) -> None:
        super().__init__(fps=fps)  # type: ignore[arg-type]
        self._stays = stays
        self._images: list[Image.Image] = []

    def setup(self, fig: Figure, outfile: str | PathLike[str], dpi: float | None = None) -> None:
        super().setup(fig, fspath(outfile), dpi)
        self._images = []

    def grab_frame(self, **savefig_kwargs: Any) -> None:
        buffer = BytesIO()
        self.fig.savefig(buffer, **savefig_kwargs, format="rgba", dpi=self.dpi)
        frame = Image.frombytes("RGBA", self.frame_size, buffer.getvalue()).convert("RGB")
        self._images.append(
            frame.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        )

    def finish(self) -> None:
        each = round(1000 / self.fps)
        times = [*[each] * (len(self._images) - 1), each + round(1000 * self._stays)]
        first, *others = self._images
        first.save(self.outfile, save_all=True, append_images=others, duration=times, loop=0)
