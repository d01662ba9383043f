"""Functions that tests name as MODULE:FUNCTION."""

from tests.elastic.miniature_modules import ResidualNet, image, trained


def residual():
    return trained(ResidualNet), image()


def takes_checkpoint(checkpoint):
    return trained(ResidualNet), checkpoint


def module_alone():
    return trained(ResidualNet)


def nothing():
    return None


def fails():
    return 1 / 0
