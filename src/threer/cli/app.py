"""From arguments to functions, and from errors to one line and an exit code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from threer.cli.data import data
from threer.cli.models import models
from threer.cli.train import train
from threer.config import (
    AlignmentConfig,
    LocalizeConfig,
    LoopConfig,
    MeshConfig,
    Preset,
    ReconstructConfig,
    RefineConfig,
    StreamingConfig,
)
from threer.errors import ThreerError

INTRINSICS = tuple[float, float, float, float] | Path | None
ANY_FLOATS = tuple[float, ...] | None
THREE_FLOATS = tuple[float, float, float] | None
SEVEN_FLOATS = tuple[float, float, float, float, float, float, float] | None
WITH_COMMAS: dict[Any, str] = {
    INTRINSICS: "FX,FY,CX,CY|FILE",
    ANY_FLOATS: "K1,K2,…",
    THREE_FLOATS: "X,Y,Z",
    SEVEN_FLOATS: "TX,TY,TZ,QX,QY,QZ,QW",
}


def run(argv: list[str]) -> int:
    """Parse ``argv``, call the verb, return the exit code."""
    console = Console(stderr=True)
    try:
        code: int = tyro.extras.subcommand_cli_from_dict(
            {
                "reconstruct": _reconstruct_with_defaults(argv),
                "demo": demo,
                "query": query,
                "mesh": mesh,
                "refine": refine,
                "loops": loops,
                "localize": localize,
                "scale": scale,
                "models": models,
                "data": data,
                "train": train,
            },
            args=argv,
            prog="threer",
            description="Feed-forward 3D reconstruction: a video or images in, a coloured point cloud and a camera "
            "for every frame out.",
            registry=_registry(),
        )
        return code
    except ThreerError as error:
        console.print(f"threer: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("threer: interrupted", markup=False)
        return 130


def _reconstruct_with_defaults(argv: list[str]) -> Any:
    """The verb, with the defaults of the preset that ``argv`` names: a preset changes what is *not* given."""
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument("--preset", default="default")
    preset: Preset = "parity" if early.parse_known_args(argv)[0].preset == "parity" else "default"
    defaults = ReconstructConfig()
    if preset == "parity":
        defaults = ReconstructConfig(streaming=StreamingConfig.parity(), alignment=AlignmentConfig.parity())

    def reconstruct(
        source: tyro.conf.Positional[tuple[str, ...]],
        out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("out"),
        config: tyro.conf.OmitArgPrefixes[ReconstructConfig] = defaults,
        json: bool = False,
    ) -> int:
        """Reconstruct a video, images, a camera or a stream.

        Args:
            source: A video file, a folder, a glob in quotes, image files, or something live: camera:0,
                watch:FOLDER, or the address of a stream (http, rtsp, udp …).
            out: Folder of the run.
            config: Settings.
            json: Print the report as JSON on standard output, and nothing else.
        """
        from threer.cli.reconstruct import reconstruct as command

        if not source:
            raise ThreerError("no source given: name a video, a folder or image files")
        return command(source[0] if len(source) == 1 else list(source), out, config, json=json)

    return reconstruct


def demo(out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("demo"), seed: int = 9) -> int:
    """Render a walk through a made-up room, reconstruct it with the packaged weights, and score the result.

    Args:
        out: Folder for the video, the run and the pictures.
        seed: Which room.
    """
    from threer.apps.demo import demo as app

    return app(out, seed)


def query(
    run: tyro.conf.Positional[Path],
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    frame: int | None = None,
    move: THREE_FLOATS = None,
    pose: SEVEN_FLOATS = None,
    fly_through: Path | None = None,
    seconds: float = 5.0,
    weights: str | None = None,
    device: str = "cpu",
) -> int:
    """Show a scene of cut3r from where no camera was, as the network remembers it.

    Args:
        run: Folder of a complete run of cut3r.
        out: Picture to write (.png).
        frame: Look through the camera of this frame of the source; by default the first that is remembered.
        move: From there go right, down and forward by so much: --move -0.5,0,0 is half a unit to the left.
        pose: Look from this camera-to-world pose instead, in the world of the run.
        fly_through: Film to write (.mp4) along the way of the camera.
        seconds: Length of the film.
        weights: Where the weights of the run are, if they have moved.
        device: Where to compute: cpu, cuda or mps.
    """
    from threer.cli.query import query as command

    return command(
        run, out, fly_through, frame=frame, move=move, pose=pose, seconds=seconds, weights=weights, device=device
    )


def mesh(
    run: tyro.conf.Positional[Path],
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    config: tyro.conf.OmitArgPrefixes[MeshConfig] = MeshConfig(),  # noqa: B008 - frozen
) -> int:
    """Make a triangle mesh of a finished run by fusing its depth maps. Holes stay open.

    Args:
        run: Folder of the run.
        out: File to write: .ply, .glb or .obj; mesh.ply in the folder of the run if not given.
        config: Settings.
    """
    from threer.cli.mesh import mesh as command

    return command(run, out or run / "mesh.ply", config)


def refine(
    run: tyro.conf.Positional[Path],
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    config: tyro.conf.OmitArgPrefixes[RefineConfig] = RefineConfig(),  # noqa: B008 - frozen
) -> int:
    """Adjust cameras and depths of a finished run, of any method, to features seen in several pictures.

    The run itself stays; where refinement does not help nothing is written but the reason, in its report.

    Args:
        run: Folder of the run.
        out: Folder of the refined run; `refined` in the folder of the run if not given.
        config: Settings.
    """
    from threer.cli.refine import refine as command

    return command(run, out, config)


def loops(
    run: tyro.conf.Positional[Path],
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    config: tyro.conf.OmitArgPrefixes[LoopConfig] = LoopConfig(),  # noqa: B008 - frozen
) -> int:
    """Find where the camera of a finished run came back, and bend the run so that it meets itself there.

    The run itself stays; where there is no loop nothing is written but the reason, in its report.

    Args:
        run: Folder of the run.
        out: Folder of the run with closed loops; `closed` in the folder of the run if not given.
        config: Settings.
    """
    from threer.cli.loops import loops as command

    return command(run, out, config)


def scale(
    run: tyro.conf.Positional[Path],
    distance: tuple[str, str, float] | None = None,
    trajectory: Path | None = None,
    reset: bool = False,
) -> int:
    """Bring a finished run to metres, from something that is known. Its frames on disk stay as they are.

    Args:
        run: Folder of the run.
        distance: Two points and how far apart they are: FRAME:U,V FRAME:U,V METRES, with pixels of the original
            pictures, as in 3:410,220 17:88,301 1.25.
        trajectory: File in the TUM format with the way of the camera in metres.
        reset: Undo it.
    """
    from threer.cli.scale import scale as command

    return command(run, distance=distance, trajectory=trajectory, reset=reset)


def localize(
    run: tyro.conf.Positional[Path],
    images: tyro.conf.Positional[tuple[str, ...]],
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    config: tyro.conf.OmitArgPrefixes[LocalizeConfig] = LocalizeConfig(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Find where pictures were taken, in a finished run of any method.

    Each one is found, ambiguous or failed, with the reason; the exit code is 1 if none is found.

    Args:
        run: Folder of the run.
        images: Image files, folders, globs in quotes, or videos.
        out: Folder for localisation.json, cameras.json and trajectory.tum.
        config: Settings.
        json: Print the answers as JSON on standard output, and nothing else.
    """
    from threer.cli.localize import localize as command

    if not images:
        raise ThreerError("no picture given: name image files, or a folder of them")
    return command(run, images, out, config, json=json)


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Lets numbers that belong together be written with commas, as cameras are: --intrinsics 585,585,320,240."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def numbers(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
        metavar = WITH_COMMAS.get(info.type)
        if metavar is None:
            return None
        length = None if info.type == ANY_FLOATS else metavar.count(",") + 1

        def parse(arguments: list[str]) -> tuple[float, ...] | Path | None:
            if arguments == ["None"]:
                return None
            try:
                values = tuple(float(v) for v in arguments[0].split(","))
            except ValueError:
                if info.type != INTRINSICS:
                    raise
                return Path(arguments[0])
            if length is not None and len(values) != length:
                raise ValueError(f"expected {length} numbers {metavar.lower()}, got {arguments[0]}")
            return values

        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=parse,
            is_instance=lambda value: value is None or isinstance(value, tuple | Path),
            str_from_instance=lambda value: [",".join(map(str, value)) if isinstance(value, tuple) else str(value)],
        )

    return registry
