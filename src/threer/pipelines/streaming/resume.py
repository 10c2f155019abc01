"""A session as plain data and tensors, and back: so that a stream can go on in another process.

Every attribute of every object that a session is made of is saved, but for what the new session is given anyway
(settings, model, trace). A kind of value that is not known here is an error that names it, so nothing that is
added to a session can be forgotten. Nothing is executed on the way back: only the classes listed here are made.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from threer.errors import RunError
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.refine.loops import Loop
from threer.pipelines.refine.pose_graph import Edge
from threer.pipelines.streaming.buffer import SceneBuffer
from threer.pipelines.streaming.closing import Found, LoopCloser
from threer.pipelines.streaming.emission import Emitter
from threer.pipelines.streaming.networks import Networks
from threer.pipelines.streaming.places import Place
from threer.pipelines.streaming.preview import Previewer
from threer.pipelines.streaming.schedule import Schedule
from threer.pipelines.streaming.session import StreamingSession
from threer.pipelines.streaming.state import Draws, Keyframe
from threer.pipelines.streaming.tracking import Tracking
from threer.pipelines.streaming.twins import Twins
from threer.types import Frame, Pointmap, Sim3, Update

CLASSES = {
    cls.__name__: cls
    for cls in (
        StreamingSession,
        CameraTracker,
        Draws,
        Edge,
        Emitter,
        Found,
        Frame,
        Keyframe,
        Loop,
        LoopCloser,
        Place,
        Pointmap,
        Previewer,
        SceneBuffer,
        Schedule,
        Sim3,
        Tracking,
        Twins,
        Update,
    )
}
GIVEN = ("config", "_config", "_model", "_networks", "_trace")
"""Attributes, of whatever object, that are not saved: `restore_session` sets them to what the new session has."""


def save_session(session: StreamingSession) -> tuple[dict[str, Any], list[Tensor]]:
    """Everything that ``session`` knows, as JSON data and the tensors it refers to. Nothing is copied.

    Raises TypeError naming the attribute that holds something unknown.
    """
    saver = _Saver()
    saver.reference(session, "session")
    return {"objects": saver.objects}, saver.tensors


def restore_session(session: StreamingSession, saved: Mapping[str, Any], tensors: list[Tensor]) -> None:
    """Make the new ``session`` go on where the saved one was; it must have the same settings and weights.

    Raises `RunError` if the saved one was of another version of the program.
    """
    classes = [CLASSES.get(entry["class"]) for entry in saved["objects"]]
    if not classes or classes[0] is not StreamingSession or None in classes:
        raise _another_version()
    objects = [session, *(object.__new__(cls) for cls in classes[1:] if cls)]
    loader = _Loader(objects, tensors)
    given = {name: vars(session).get(name) for name in GIVEN}
    given |= {"_config": session.config, "_networks": Networks(session._model, session.config)}
    fresh = vars(session).keys() - set(GIVEN)
    for instance, entry in zip(objects, saved["objects"], strict=True):
        names = set(entry["fields"])
        if dataclasses.is_dataclass(instance) and names != {f.name for f in dataclasses.fields(instance)}:
            raise _another_version()
        if instance is session and names != fresh:
            raise _another_version()
        for name, value in entry["fields"].items():
            object.__setattr__(instance, name, loader.value(value))  # frozen classes, too
        if instance is not session:
            for name in entry["given"]:
                object.__setattr__(instance, name, given[name])


def _another_version() -> RunError:
    return RunError(
        "this run was saved by another version of threer and cannot go on: use that version, or overwrite the run"
    )


class _Saver:
    """Turns objects into data. Objects that are reached in several ways are saved once."""

    def __init__(self) -> None:
        self.objects: list[dict[str, Any]] = []
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}
        self._tensor_numbers: dict[int, int] = {}

    def reference(self, instance: Any, where: str) -> dict[str, int]:
        if id(instance) not in self._numbers:
            self._numbers[id(instance)] = len(self.objects)
            entry: dict[str, Any] = {"class": type(instance).__name__, "fields": {}, "given": []}
            self.objects.append(entry)
            for name, value in vars(instance).items():
                if name in GIVEN:
                    entry["given"].append(name)
                else:
                    entry["fields"][name] = self.value(value, f"{where}.{name}")
        return {"object": self._numbers[id(instance)]}

    def value(self, value: Any, where: str) -> Any:
        match value:
            case None | bool() | int() | float() | str():
                return value
            case list():
                return [self.value(item, where) for item in value]
            case tuple():
                return {"tuple": [self.value(item, where) for item in value]}
            case deque():
                return {"deque": [self.value(item, where) for item in value], "longest": value.maxlen}
            case dict():
                return {"dict": [[self.value(k, where), self.value(v, where)] for k, v in value.items()]}
            case Tensor():
                if id(value) not in self._tensor_numbers:
                    self._tensor_numbers[id(value)] = len(self.tensors)
                    self.tensors.append(value)
                return {"tensor": self._tensor_numbers[id(value)]}
            case np.ndarray():
                return {"array": value.tolist(), "type": str(value.dtype)}
            case np.random.Generator():
                return {"generator": value.bit_generator.state}
            case np.random.RandomState():
                return {"legacy": self.value(value.get_state(legacy=False), where)}
        if CLASSES.get(type(value).__name__) is type(value):
            return self.reference(value, where)
        raise TypeError(f"{where} is a {type(value).__name__}, which a saved session cannot hold: teach {__name__}")


class _Loader:
    """The way back."""

    def __init__(self, objects: list[Any], tensors: list[Tensor]) -> None:
        self._objects = objects
        self._tensors = tensors

    def value(self, saved: Any) -> Any:
        match saved:
            case list():
                return [self.value(item) for item in saved]
            case {"tuple": items}:
                return tuple(self.value(item) for item in items)
            case {"deque": items, "longest": longest}:
                return deque((self.value(item) for item in items), maxlen=longest)
            case {"dict": items}:
                return {self.value(k): self.value(v) for k, v in items}
            case {"tensor": number}:
                return self._tensors[number]
            case {"array": items, "type": dtype}:
                return np.array(items, dtype)
            case {"generator": state}:
                generator = np.random.default_rng()
                generator.bit_generator.state = state
                return generator
            case {"legacy": state}:
                legacy = np.random.RandomState()
                legacy.set_state(self.value(state))
                return legacy
            case {"object": number}:
                return self._objects[number]
        return saved
