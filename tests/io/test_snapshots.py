"""State on disk: whole or not at all, nothing written twice, nothing piled up."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch

from threer.errors import RunError
from threer.io.runs.snapshot import Snapshots


def stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def test_state_and_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    base = torch.rand(3, 4, 5)
    tensors = [
        base,
        base.permute(1, 2, 0),  # not contiguous, and shares memory
        base[1],
        torch.rand(6).half(),
        torch.tensor(7),
        torch.tensor([math.nan, math.inf]),
        torch.rand(2, 1, 3).movedim(0, -1).clone(),
    ]
    state = {"a": [1, 0.1, None, "ü"], "not a number": math.nan}
    assert Snapshots(tmp_path / "s").read() is None
    Snapshots(tmp_path / "s").write(state, tensors)
    found = Snapshots(tmp_path / "s").read()
    assert found is not None
    assert json.dumps(found[0]) == json.dumps(state)
    for got, expected in zip(found[1], tensors, strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got.nan_to_num(), expected.nan_to_num())
        assert got.is_contiguous() == expected.is_contiguous()
    assert found[1][1].stride() == base.permute(1, 2, 0).stride(), "sums depend on the order in memory"


def test_only_what_is_new_is_written(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    old = torch.rand(100)
    snapshots.write({}, [old])
    (first,) = tmp_path.glob("*.safetensors")
    before = first.stat().st_mtime_ns
    snapshots.write({}, [old, torch.rand(5)])
    assert first.stat().st_mtime_ns == before
    found = Snapshots(tmp_path).read()
    assert found is not None
    assert torch.equal(found[1][0], old)


def test_a_long_run_does_not_pile_up(tmp_path: Path) -> None:
    """The state of a stream: a window that moves on, and a few old frames that stay."""
    snapshots = Snapshots(tmp_path)
    live: list[torch.Tensor] = []
    written = 0
    for step in range(200):
        live.append(torch.full((1000,), float(step)))
        if len(live) > 20:
            live.pop(3 if step % 7 else 0)
        previous = {path.name for path in tmp_path.glob("*.safetensors")}
        snapshots.write({"step": step}, live)
        written += sum(p.stat().st_size for p in tmp_path.glob("*.safetensors") if p.name not in previous)
        assert stored_bytes(tmp_path) <= 2 * len(live) * 4000 + 200 * (len(live) + 1)
    assert written < 3 * 200 * 4300
    found = Snapshots(tmp_path).read()
    assert found is not None
    assert found[0] == {"step": 199}
    assert [float(t[0]) for t in found[1]] == [float(t[0]) for t in live]


def test_a_new_process_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    Snapshots(tmp_path).write({}, [torch.ones(3)])
    second = Snapshots(tmp_path)
    found = second.read()
    assert found is not None
    second.write({"n": 2}, [*found[1], torch.zeros(2)])
    again = Snapshots(tmp_path).read()
    assert again is not None
    assert [t.tolist() for t in again[1]] == [[1, 1, 1], [0, 0]]


@pytest.mark.parametrize("moment", ["tensors", "state", "removal"])
def test_killed_while_saving_leaves_the_state_before_or_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    kept = torch.rand(4)
    snapshots = Snapshots(tmp_path)
    snapshots.write({"n": 1}, [kept, torch.rand(400)])

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    original = os.replace
    with monkeypatch.context() as patch:
        if moment == "removal":
            patch.setattr(Snapshots, "_remove_all_but", die)
        else:
            patch.setattr(
                os, "replace", lambda a, b: die() if (moment == "state") == ("state" in str(b)) else original(a, b)
            )
        with pytest.raises(Killed):
            snapshots.write({"n": 2}, [kept, torch.rand(3)])
    found = Snapshots(tmp_path).read()
    assert found is not None
    assert found[0]["n"] == (2 if moment == "removal" else 1)
    assert torch.equal(found[1][0], kept)


def test_damage_is_named(tmp_path: Path) -> None:
    Snapshots(tmp_path).write({}, [torch.rand(4)])
    (tensors,) = tmp_path.glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:20])
    with pytest.raises(RunError, match=r"state\.json is damaged .*overwrite"):
        Snapshots(tmp_path).read()
    (tmp_path / "state.json").write_text('{"format": 99}')
    with pytest.raises(RunError, match="format 99"):
        Snapshots(tmp_path).read()


def test_clearing_takes_only_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "resume"
    snapshots = Snapshots(folder)
    snapshots.clear()
    snapshots.write({}, [torch.rand(4)])
    (folder / "mine.txt").write_text("mine")
    snapshots.clear()
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    (folder / "mine.txt").unlink()
    snapshots.clear()
    assert not folder.exists()
