"""Names of ImageNet's classes, which are read from torchvision's source."""

from hwsearch.accuracy.classes import imagenet_names


def test_names_are_torchvisions():
    from torchvision.models import get_weight

    named = get_weight("ResNet18_Weights.IMAGENET1K_V1").meta["categories"]
    assert imagenet_names() == tuple(named)
