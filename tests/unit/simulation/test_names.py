"""Names that the room offers: a module of one name would take its place once it is imported."""

import pkgutil

import adatom.simulation


def test_no_name_is_that_of_a_module():
    modules = {module.name for module in pkgutil.iter_modules(adatom.simulation.__path__)}
    assert not modules & set(adatom.simulation.__all__)


def test_every_name_is_there():
    for name in adatom.simulation.__all__:
        assert getattr(adatom.simulation, name) is not None
