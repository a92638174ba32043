"""The output of dense nets: one channel stands alone, several exclude each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelwise.checkpoints import from_checkpoint
from pixelwise.core.classes import Classes
from pixelwise.nn.heads import dense
from pixelwise.tasks import make_task


def test_a_single_channel_is_yes_or_no():
    logits = torch.tensor([[[[2.0, -1.0], [0.0, 3.0]]]])
    output = dense(torch.zeros(1, 3, 2, 2), None, logits, aux=[("aux", 0.4, -logits)])
    torch.testing.assert_close(output.probs(0), logits[0].sigmoid())
    assert output.class_map(0).tolist() == [[0, 1], [1, 0]]
    assert output.aux[0][2].activation == "sigmoid"
    assert dense(torch.zeros(1, 3, 2, 2), None, torch.zeros(1, 2, 2, 2)).activation == "softmax"


def test_a_net_of_one_class_that_others_trained_tells_it_from_nothing(tmp_path):
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    theirs = smp.Unet("resnet18", encoder_weights=None, classes=1).eval()
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    net, card = from_checkpoint(tmp_path / "a.pth", classes=Classes(names=("road",)))
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answer = make_task("semantic", card.classes).decode(net(images), 0)
        expected = theirs(images)[0, 0] > 0
    mine = answer.class_map(255, 200) == 0
    assert 0 < int(mine.sum()) < mine.numel()
    assert (mine == expected).float().mean() > 0.999
    assert set(np.unique(answer.class_map(255, 200))) == {0, 200}
