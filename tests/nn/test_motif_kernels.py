import numpy as np
import pytest
import torch
from torch import nn

from ciscribe.errors import ConfigError, SchemaError
from ciscribe.models.deepbind import DeepBind
from ciscribe.models.deepstarr import DeepSTARR
from ciscribe.nn.conv import Conv1d
from ciscribe.nn.motifs import start_from_motifs
from ciscribe.sequence import encode, one_hot_tensor, reverse_complement


def ppm(letters, sharpness=0.91):
    """Matrix of a consensus; N is a column without information."""
    out = np.full((4, len(letters)), (1 - sharpness) / 3)
    for i, code in enumerate(encode(letters)):
        out[:, i] = 0.25 if code == 4 else out[:, i]
        if code < 4:
            out[code, i] = sharpness
    return out


def planted(letters, at, length=61, seed=0):
    codes = torch.randint(0, 4, (3, length), generator=torch.Generator().manual_seed(seed))
    codes[1, at:at + len(letters)] = torch.tensor(encode(letters).tolist())
    return one_hot_tensor(codes)


def test_kernel__finds_its_planted_motif():
    torch.manual_seed(0)
    model = DeepSTARR(2, length=61, filters=(11, 13, 5, 3), hidden=17)
    assert start_from_motifs(model, [ppm("TGACTCA"), ppm("GATAA")]) == 2
    conv = model.trunk[0]
    score = conv(planted("TGACTCA", 29))[:, 0]  # same padding: a position is the middle of the kernel
    assert score[1].argmax() == 29 + 3
    assert score[1].max() > score[[0, 2]].max()
    assert conv(planted("GATAA", 41))[1, 1].argmax() == 41 + 2


def test_kernel__is_the_score_of_a_match_in_bits():
    conv = Conv1d(4, 3, 5, bias=False)
    start_from_motifs(conv, [ppm("GATAA")], pseudocount=1e-9)
    hit = one_hot_tensor(torch.tensor([encode("GATAA").tolist(), encode("GATAC").tolist()]))
    expected = [5 * np.log2(0.91 / 0.25), 4 * np.log2(0.91 / 0.25) + np.log2(0.03 / 0.25)]
    np.testing.assert_allclose(conv(hit)[:, 0, 0].detach().numpy(), expected, rtol=1e-5)


def test_background__enters_the_log_odds():
    conv = Conv1d(4, 1, 2, bias=False)
    share = [0.3, 0.2, 0.2, 0.3]
    start_from_motifs(conv, [np.array([[0.7, 0.3], [0.1, 0.2], [0.1, 0.2], [0.1, 0.3]])], background=share,
                      pseudocount=1e-9)
    np.testing.assert_allclose(conv.weight[0, :, 1].detach(), 0, atol=1e-5)
    np.testing.assert_allclose(conv.weight[0, 0, 0].item(), np.log2(0.7 / 0.3), rtol=1e-5)


def test_pseudocount__bounds_the_log_odds():
    conv = Conv1d(4, 1, 3, bias=False)
    start_from_motifs(conv, [ppm("TGA", sharpness=1.0)])
    assert conv.weight.min().item() == pytest.approx(np.log2(0.01 / 1.04 / 0.25), rel=1e-5)


def test_shorter_motif__stands_in_the_middle_of_zeros():
    conv = Conv1d(4, 2, 8)
    start_from_motifs(conv, [ppm("GAT")])
    assert (conv.weight[0].abs().sum(dim=0) > 0).tolist() == [False, False, True, True, True, False, False, False]


def test_longer_motif__keeps_its_most_informative_window():
    conv, exact = Conv1d(4, 2, 5), Conv1d(4, 2, 5)
    start_from_motifs(conv, [ppm("ANNGATAANC")])
    start_from_motifs(exact, [ppm("GATAA")])
    torch.testing.assert_close(conv.weight[0], exact.weight[0])


def test_both_strands__alternate():
    conv = Conv1d(4, 7, 5)
    assert start_from_motifs(conv, [ppm("NGATAANN"), ppm("TGACC")], both_strands=True) == 4
    for i in (0, 2):
        torch.testing.assert_close(conv.weight[i + 1], conv.weight[i].flip(0, 1))
    X = planted("GATAA", 23)
    torch.testing.assert_close(conv(X)[:, 0] - conv.bias[0],
                               (conv(reverse_complement(X))[:, 1] - conv.bias[1]).flip(-1))


def test_jores__divides_by_a_quarter():
    conv = Conv1d(4, 2, 7)
    start_from_motifs(conv, [ppm("GATNA")], scale="jores")
    np.testing.assert_allclose(conv.weight[0, :, 1:6].detach(), ppm("GATNA") / 0.25, rtol=1e-6)
    assert conv.weight[0, :, 4].tolist() == [1, 1, 1, 1]
    assert not conv.weight[0, :, [0, 6]].any()


def test_the_rest__stays():
    model = DeepBind(filters=5, kernel=7)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert start_from_motifs(model, [ppm("GATAA"), ppm("TGACC")]) == 2
    after = model.state_dict()
    changed = [k for k in after if not torch.equal(after[k], before[k])]
    assert changed == ["scan.0.weight"]
    assert torch.equal(after["scan.0.weight"][2:], before["scan.0.weight"][2:])
    assert model.scan[0].weight.requires_grad
    assert start_from_motifs(model, []) == 0


def test_convolution__the_first_that_reads_bases():
    model = nn.Sequential(nn.Conv1d(4, 5, 1), nn.Conv1d(5, 4, 7), nn.Conv1d(4, 3, 7), nn.Conv1d(4, 3, 11))
    before = [m.weight.clone() for m in model]
    start_from_motifs(model, [ppm("GATAA")])
    assert [torch.equal(m.weight, w) for m, w in zip(model, before, strict=True)] == [True, True, False, True]


def test_refuses():
    conv = nn.Conv1d(4, 3, 7)
    with pytest.raises(ConfigError, match="Sequential has none; its first convolutions: 6 × 7 bp; pass"):
        start_from_motifs(nn.Sequential(nn.Conv1d(6, 5, 7)), [ppm("GATAA")])
    with pytest.raises(ConfigError, match="its first convolutions: none at all"):
        start_from_motifs(nn.Linear(4, 3), [ppm("GATAA")])
    with pytest.raises(ConfigError, match="4 motif kernels do not fit into the 3 filters"):
        start_from_motifs(conv, [ppm("GATAA"), ppm("TGACC")], both_strands=True)
    with pytest.raises(SchemaError, match=r"1 of 2 are not; first: motif 1 of shape \(4, 5\); divide counts"):
        start_from_motifs(conv, [ppm("GATAA"), ppm("GATAA") * 20])
    with pytest.raises(SchemaError, match="1 of 1 are not"):
        start_from_motifs(conv, [np.full((4, 3), np.nan)])
    with pytest.raises(ConfigError, match="background lies between 0 and 1"):
        start_from_motifs(conv, [ppm("GATAA")], background=0.0)
