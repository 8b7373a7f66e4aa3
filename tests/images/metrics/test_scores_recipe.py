"""The file of the recipe for PyTorch's scores, run with modules that have the interface of torch, pyiqa and imscore."""

from __future__ import annotations

import contextlib
import re
import sys
from types import ModuleType

import numpy as np
import pytest
import yaml

import sweeper
from tests import ROOT

PAGE = ROOT / "experiments/recipes.md"


class Tensor:
    """The few methods of torch.Tensor that the recipe uses."""

    def __init__(self, array):
        self.array = np.asarray(array)

    def permute(self, *axes):
        return Tensor(self.array.transpose(axes))

    def __getitem__(self, key):
        return Tensor(self.array[key])

    def __truediv__(self, number):
        return Tensor(self.array / number)

    def item(self):
        return self.array.item()


class PickScorer:
    loaded = 0

    @classmethod
    def from_pretrained(cls, name):
        assert name == "RE-N-Y/pickscore"
        cls.loaded += 1
        return cls()

    def to(self, device):
        return self

    def eval(self):
        return self

    def score(self, pixels, prompts):
        batch, channels, height, _ = pixels.array.shape
        assert (batch, channels, len(prompts)) == (1, 3, 1)
        assert 0 <= pixels.array.min() <= pixels.array.max() <= 1
        return Tensor([height + len(prompts[0])])


@pytest.fixture
def packages(monkeypatch):
    names = ("torch", "pyiqa", "imscore", "imscore.pickscore", "imscore.pickscore.model")
    modules = {name: ModuleType(name) for name in names}
    torch, pyiqa = modules["torch"], modules["pyiqa"]
    torch.cuda = ModuleType("cuda")
    torch.cuda.is_available = lambda: False
    torch.tensor = lambda array, device: Tensor(array)
    torch.no_grad = _NoGrad
    pyiqa.create_metric = lambda name, device: {"musiq": lambda pixels: Tensor(pixels.array.mean())}[name]
    modules["imscore.pickscore.model"].PickScorer = PickScorer
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


class _NoGrad(contextlib.ContextDecorator):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def test_recipe_gives_scores_of_picture_and_prompt(packages, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "scores", raising=False)
    (code,) = re.findall(r"^```py\n(from functools.*?)^```$", PAGE.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "scores.py").write_text(code)
    experiment = {
        "template": str(ROOT / "templates/txt2img.json"),
        "params": {"steps": 1, "width": 64, "height": 128},
        "sweep": {"grid": {"prompt": ["a fox", "a red fox"]}},
        "metrics": ["brightness", "scores:musiq", "scores:pickscore"],
    }
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(experiment))
    sweeper.run("e.yaml", out="out")
    rows = sweeper.results("out").to_dict("records")
    assert [row["scores:pickscore"] for row in rows] == [128 + 5, 128 + 9]
    assert all(0 < row["scores:musiq"] < 1 for row in rows)
    assert PickScorer.loaded == 1
