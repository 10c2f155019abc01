"""The command line: exit codes, one-line errors, JSON, and nothing heavy before it is needed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from threer.cli import main
from threer.cli.reconstruct import Bar
from threer.io.runs import Scene
from threer.models.checkpoints import save_checkpoint
from threer.models.slam3r import SLAM3R, SLAM3RConfig
from threer.types import Checkpoint, Frame, Update


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    config = SLAM3RConfig(
        image_size=32, enc_dim=16, enc_depth=1, enc_heads=2, dec_dim=16, dec_depth=2, dec_heads=2, ray_prior=0.6
    )
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    save_checkpoint(SLAM3R.from_config(config), folder, Checkpoint("tiny", "slam3r", (), "Apache-2.0"))
    return str(folder)


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than everything else and is tested where it is called from."""
    monkeypatch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    return folder


FAST = ["--stride", "1", "--radius", "2", "--init-frames", "3", "--init-min-conf", "0", "--device", "cpu"]


def test_reconstruct_prints_its_report_as_json(
    images: Path, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = main(["reconstruct", str(images), "-o", str(out), "--weights", weights, "--json", *FAST])
    assert code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["counts"]["final"] == 10
    assert report["out"] == str(out)


def test_summary_goes_to_standard_error(
    images: Path, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reconstruct", str(images), "-o", str(tmp_path / "o"), "--weights", weights, *FAST]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    for words in ("slam3r", "tiny", "Apache-2.0", "points.ply"):
        assert words in captured.err


def test_a_stopped_run_is_resumed_and_a_complete_one_is_named(
    images: Path, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ["reconstruct", str(images), "-o", str(out), "--weights", weights, "--save-every", "0", *FAST]

    def stop(bar: Bar, update: Update) -> None:
        if update.frame.index == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Bar, "on", stop)
        assert main(command) == 130
    assert main(command) == 1
    assert "resume or overwrite it" in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--resume"]) == 0
    assert "going on after 6 frames" in capsys.readouterr().err
    assert main([*command, "--resume", "--json"]) == 0
    captured = capsys.readouterr()
    assert "is already complete" in " ".join(captured.err.split())
    assert json.loads(captured.out)["counts"]["final"] == 10


def test_several_files_and_commas_in_intrinsics(images: Path, tmp_path: Path, weights: str) -> None:
    files = sorted(str(p) for p in images.iterdir())[:5]
    out = tmp_path / "out"
    arguments = ["reconstruct", *files, "--out", str(out), "--weights", weights, "--intrinsics", "40,41,24.5,19.5"]
    assert main([*arguments, *FAST]) == 0
    assert len(Scene.open(out)) == 5
    assert Scene.open(out).cameras.K[0, 1, 1] == 41


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reconstruct", "/no/such/clip.mp4"], "/no/such/clip.mp4"),
        (["reconstruct"], "no source given"),
        (["reconstruct", "{images}", "--weights", "nothing"], "unknown weights"),
        (["reconstruct", "{images}", "--stride", "0"], "stride"),
    ],
)
def test_errors_are_one_line_and_exit_code_one(
    arguments: list[str], words: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [a.format(images=images) for a in arguments]
    assert main([*filled, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("threer: ")
    assert words in error
    assert "\n" not in error


def test_wrong_usage_is_exit_code_two() -> None:
    with pytest.raises(SystemExit) as exited:
        main(["reconstruct", "x", "--no-such-flag"])
    assert exited.value.code == 2


def test_preset_changes_what_is_not_given(images: Path, tmp_path: Path, weights: str) -> None:
    out = tmp_path / "out"
    arguments = ["reconstruct", str(images), "-o", str(out), "--weights", weights, "--preset", "parity"]
    assert main([*arguments, "--radius", "2", "--init-min-conf", "0", "--device", "cpu"]) == 0
    streaming = Scene.open(out).settings["streaming"]
    assert streaming["preset"] == "parity"
    assert streaming["normalize_references"] is False
    assert streaming["radius"] == 2


def test_help_needs_no_torch() -> None:
    script = (
        "import sys\nfrom threer.cli import main\n"
        "try:\n    main(['reconstruct', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported for --help'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_cleanly(images: Path, tmp_path: Path, weights: str) -> None:
    for i in range(10, 4000):  # long enough to be interrupted, on a busy machine too
        os.link(images / f"{i % 10:02d}.png", images / f"{i:04d}.png")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "threer", "reconstruct", str(images), "-o", str(out), "--weights", weights]
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever starts tests in the background may ignore it
    process = subprocess.Popen([*command, *FAST], stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 120
    while not (out / "frames" / "000000.npz").is_file():
        assert time.monotonic() < deadline, "no frames came out"
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"final frames are kept in {out}; --resume goes on" in error
    assert "Traceback" not in error
    scene = Scene.open(out)
    assert scene.state == "interrupted"
    assert 0 < len(scene) < 4000


def test_stages_without_frames_have_a_bar_of_their_own() -> None:
    update = Update("final", Frame(torch.zeros(3, 4, 4), 0, 0.0, "a.png", (4, 4), np.eye(2, 3)))
    for terminal in (True, False):
        text = io.StringIO()
        with Bar(Console(file=text, force_terminal=terminal, width=100)) as bar:
            bar.stage("pairs", 3, 10)
            bar.stage("features", 7, 0)
            bar._progress.refresh()
            during = text.getvalue()
            bar.on(update)
            bar._progress.refresh()
            after = text.getvalue()[len(during) :]
        assert ("features" in during) == terminal
        assert "features" not in after
        assert ("reconstructing" in after) == terminal


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    command = [sys.executable, "-m", "threer", "reconstruct", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
