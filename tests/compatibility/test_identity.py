"""Digests of experiments and keys of caches are those that plifctl 0.1.0 computed, letter for letter.

A digest that changes orphans every run and every result record of its experiment; a key that changes orphans caches
which took hours to build. ``identity.json`` holds what the code gave before modules and words were renamed
(``make_identity.py`` made it); recipes have their names of then in it: ``published`` is what the authors' code ran.
"""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

IDENTITY: dict[str, Any] = json.loads((Path(__file__).parent / "identity.json").read_text(encoding="utf-8"))
_PROTOCOLS: tuple[Any, ...] = ("A", "B")


def _registry() -> Any:
    from plifctl.config.lookup import load_registry

    return load_registry()


def _spec(name: str, recipe: str, protocol: Any = "A", overrides: tuple[str, ...] = ()) -> Any:
    """Returns a resolved experiment; with those around it, all that depends on how modules and functions are called."""
    resolved = _registry().experiment(name, recipe=_recipe(recipe), overrides=list(overrides))
    return resolved.for_protocol(protocol).spec


def _digest(spec: Any) -> str:
    return str(spec.digest)


def _science(spec: Any) -> dict[str, Any]:
    """Returns what is hashed for the digest."""
    from plifctl.config.identity import hashed_words

    return hashed_words(spec.identity())


def _key(dataset: str, recipe: str, T: int | None, overrides: list[str]) -> Any:
    """Returns the cache key, with ``fields``, ``digest`` and ``path``, of a data set of raw data that nobody has."""
    from plifctl.cache.key import CacheKey, raw_independent_key

    found = _registry().dataset(dataset, _recipe(recipe), overrides)
    return CacheKey({**raw_independent_key(found.with_T(T)), "raw": IDENTITY["raw"]})


def _recipe(name: str) -> Any:
    """Returns what the code under test calls a recipe of then."""
    return "authors" if name == "published" else name


@pytest.fixture(autouse=True)
def shipped_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No registry folder of the user's own."""
    monkeypatch.delenv("PLIFCTL_REGISTRY", raising=False)


@pytest.fixture
def tonic_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """tonic's version is part of the key of a cache with transforms: here it is the one that the file was made with."""
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: IDENTITY["tonic"] if name == "tonic" else version(name))


def test_identity_file_holds_every_experiment_and_dataset() -> None:
    names = {"cifar10", "cifar10dvs", "fashion-mnist", "gesture", "mnist", "nmnist"}
    kinds = ("plif", "plif-tau16", "lif", "lif-tau16", "plif-avgpool")
    assert set(IDENTITY["experiments"]) == {f"{name}-{kind}" for name in names for kind in kinds} | {"demo"}
    recorded = {(key["dataset"], key["recipe"]) for key in IDENTITY["keys"]}
    assert recorded == {(name, recipe) for name in names | {"synthetic-gesture"} for recipe in ("paper", "published")}
    digests = [text for one in IDENTITY["experiments"].values() for text in one.values()]
    assert all(len(text) == 64 for text in digests)
    assert len(set(digests)) == 2 * 31 + 5  # the authors' code gave N-MNIST another T in protocol B


@pytest.mark.parametrize("name", IDENTITY["experiments"])
def test_experiment_digest_is_that_of_0_1_0(name: str) -> None:
    found = {
        f"{recipe} {protocol}": _digest(_spec(name, recipe, protocol))
        for recipe in ("paper", "published")
        for protocol in _PROTOCOLS
    }
    assert found == IDENTITY["experiments"][name]


@pytest.mark.parametrize("name", IDENTITY["experiments"])
def test_recipe_by_its_name_of_then_has_the_same_digest(name: str) -> None:
    resolved = _registry().experiment(name, recipe="published")
    assert resolved.spec.recipe == "authors"
    assert resolved.spec.digest == IDENTITY["experiments"][name]["published A"]


@pytest.mark.parametrize("label", IDENTITY["gesture-plif with"])
def test_digest_with_overrides_is_that_of_0_1_0(label: str) -> None:
    wanted = dict(IDENTITY["gesture-plif with"][label])
    overrides = tuple(wanted.pop("overrides"))
    found = {
        f"{recipe} {protocol}": _digest(_spec("gesture-plif", recipe, protocol, overrides))
        for recipe in ("paper", "published")
        for protocol in _PROTOCOLS
    }
    assert found == wanted


@pytest.mark.parametrize("name", IDENTITY["science"])
@pytest.mark.parametrize("recipe", ["paper", "published"])
def test_hashed_fields_of_an_experiment_are_those_of_0_1_0(name: str, recipe: str) -> None:
    hashed = json.loads(json.dumps(_science(_spec(name, recipe))))
    assert hashed == IDENTITY["science"][name][recipe]


def _label(key: dict[str, Any]) -> str:
    changes = " ".join(key["overrides"])
    return f"{key['dataset']} {key['recipe']} {key['T']} {changes}"[:80]


@pytest.mark.usefixtures("tonic_of_then")
@pytest.mark.parametrize("wanted", IDENTITY["keys"], ids=_label)
def test_cache_key_is_that_of_0_1_0(wanted: dict[str, Any]) -> None:
    key = _key(wanted["dataset"], wanted["recipe"], wanted["T"], wanted["overrides"])
    if "fields" in wanted:  # before the hash, which would not tell what differs
        assert json.loads(json.dumps(dict(key.fields))) == wanted["fields"]
    assert key.digest == wanted["digest"]
    assert key.path(Path()) == Path(wanted["dataset"]) / wanted["file"]
