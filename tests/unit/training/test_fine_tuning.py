"""Fine-tuning: which weights are taken, which parameters are frozen, and a training with both."""

from typing import Any

import pytest
import torch
from tiny_training import (
    CPU,
    SPLIT_A,
    Float64Loader,
    MemoryRecorder,
    ShadeSamples,
    reproducible,
    same_weights,
    tiny_spec,
    tiny_trainer,
    with_structure,
)
from torch import Tensor

from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import Interrupted, UsageError
from plifctl.snn.bn_folding import fold_batch_norm
from plifctl.training.batches import BatchLoader
from plifctl.training.fine_tuning import describe_layers, match_weights, select_frozen, weights_digest
from plifctl.training.trainer import Trainer, build_model

FREEZE = 'train.freeze=["conv*", "bn0"]'
FROZEN = ["layers.conv0.weight", "layers.bn0.weight", "layers.bn0.bias"]


def weights(spec: ExperimentSpec | None = None) -> dict[str, Tensor]:
    """Returns weights that no training begins with by itself."""
    state = build_model(spec or tiny_spec("train.seed=9"), CPU).state_dict()
    return {name: values + 0.01 if values.is_floating_point() else values + 3 for name, values in state.items()}


class TestMatchWeights:
    def test_tensors_of_equal_name_and_shape_are_taken_and_the_others_named(self) -> None:
        spec = tiny_spec()
        wider = build_model(with_structure(spec, spec.network.structure.replace("FC20", "FC30")), CPU)
        source = build_model(tiny_spec("train.seed=9"), CPU)
        source.load_state_dict(weights())
        found = match_weights(source, wider, "a run")
        assert (found.anew, found.unused) == (("layers.fc0.weight", "layers.fc1.weight"), ())
        assert set(found.taken) == set(wider.state_dict()) - set(found.anew)
        assert torch.equal(found.taken["layers.conv0.weight"], weights()["layers.conv0.weight"])

    def test_another_structure_is_an_error_with_names_and_shapes_of_both(self) -> None:
        other = build_model(with_structure(tiny_spec(), "APk4s4-FC50-SN-FC100-SN-APk10s10"), CPU)
        with pytest.raises(UsageError) as error:
            match_weights(build_model(tiny_spec(), CPU), other, "a run")  # a of sn0 fits everywhere
        assert "a run: no weights fit the network: found layers.conv0.weight [4, 1, 3, 3]" in str(error.value)
        assert "expected layers.fc0.weight [50, 49]" in str(error.value)
        assert "--params" in error.value.hint

    def test_tensors_that_the_network_does_not_have_are_named(self) -> None:
        spec = tiny_spec()
        biased = build_model(with_structure(spec, spec.network.structure.replace("FC20", "FC20b")), CPU)
        found = match_weights(biased, build_model(spec, CPU), "a run")
        assert (found.anew, found.unused) == ((), ("layers.fc0.bias",))

    def test_convolution_with_a_folded_batch_norm_is_no_begin_of_one_with_batch_norm(self) -> None:
        spec = tiny_spec()
        model = build_model(spec, CPU)
        folded = fold_batch_norm(model)
        with pytest.raises(UsageError, match="a run: conv0 with a bias and without batch norm") as error:
            match_weights(folded, model, "a run")
        assert "without --fold-bn" in error.value.hint
        same = build_model(with_structure(spec, folded.network.structure), CPU)
        assert match_weights(folded, same, "a run").anew == ()
        with_bias = build_model(with_structure(spec, spec.network.structure.replace("k3s1", "k3s1b")), CPU)
        assert match_weights(with_bias, model, "a run").unused == ("layers.conv0.bias",)

    def test_digest_depends_on_names_shapes_and_bytes_and_on_nothing_else(self) -> None:
        own = weights()
        digest = weights_digest(own)
        strided = {name: values.mT.contiguous().mT if values.dim() > 1 else values for name, values in own.items()}
        assert weights_digest(dict(reversed(strided.items()))) == digest
        name = "layers.bn0.bias"
        changed = [
            {**own, name: own[name].nextafter(torch.tensor(9.0))},
            {**own, name: own[name].double()},
            {**own, name: own[name][None]},
            {**{key: values for key, values in own.items() if key != name}, "layers.bn0.bios": own[name]},
        ]
        assert len({digest, *map(weights_digest, changed)}) == 5


class TestSelectFrozen:
    @pytest.mark.parametrize(
        ("patterns", "expected"),
        [
            ((), []),
            (("conv0",), FROZEN[:1]),
            (("conv*", "bn?"), FROZEN),
            (("layers.conv0.*", "layers.bn0"), FROZEN),
            (("*.bias", "layers.sn0.a"), ["layers.bn0.bias", "layers.sn0.a"]),
            (("[!cf]*",), ["layers.bn0.weight", "layers.bn0.bias", *(f"layers.sn{n}.a" for n in range(3))]),
        ],
    )
    def test_patterns_are_compared_with_layers_and_parameters(
        self, patterns: tuple[str, ...], expected: list[str]
    ) -> None:
        assert select_frozen(build_model(tiny_spec(), CPU), patterns) == expected

    def test_pattern_without_a_parameter_lists_the_layers(self) -> None:
        for pattern in ("conv1", "CONV0", "pool*", "layers"):
            with pytest.raises(UsageError, match="selects no parameter") as error:
                select_frozen(build_model(tiny_spec(), CPU), ("conv0", pattern))
            assert error.value.hint == "layers: conv0, bn0, sn0, fc0, sn1, fc1, sn2"

    def test_freezing_everything_is_an_error(self) -> None:
        with pytest.raises(UsageError, match="all parameters, so there is nothing to train"):
            select_frozen(build_model(tiny_spec(), CPU), ("[!f]*", "f*"))


def test_describe_layers_lists_what_an_incomplete_layer_has() -> None:
    known = [*FROZEN, "layers.fc0.weight"]
    assert describe_layers(FROZEN[:2], known) == "conv0, bn0 (weight)"
    assert describe_layers(known, known, 1) == "conv0 and 2 more"
    assert describe_layers([], known) == ""


def test_digest_without_weights_and_frozen_layers_is_that_of_before() -> None:
    spec = tiny_spec()
    assert {"freeze", "weights"}.isdisjoint(spec.identity()["train"])
    digests = {spec.digest, tiny_spec(FREEZE).digest, tiny_spec(f"train.weights={'a' * 64}").digest}
    assert len(digests) == 3
    assert tiny_spec('train.freeze=["bn0", "conv*", "bn0"]').digest == tiny_spec(FREEZE).digest


def fine_tuning(recorder: MemoryRecorder, *settings: str, graph: bool = False, double: bool = False) -> Trainer:
    spec = tiny_spec(FREEZE, "train.optimizer_options={weight_decay: 0.1}", *settings)
    loader = (Float64Loader if double else BatchLoader)(ShadeSamples(), spec, CPU)
    return Trainer(spec, loader, SPLIT_A, recorder, graph=graph, start=weights())


class TestTraining:
    def test_frozen_tensors_keep_their_bits_and_the_others_learn(self) -> None:
        recorder = MemoryRecorder()
        fine_tuning(recorder).run()
        before, after = weights(), recorder.saved["last"]["model"]
        kept = [name for name in before if torch.equal(before[name], after[name])]
        assert kept == [name for name in before if name.startswith(("layers.conv0.", "layers.bn0."))]  # and statistics
        for row in recorder.rows:
            norms = row.gradient_norm
            assert [name for name, norm in norms.items() if norm is None] == ["conv0", "bn0"]
            assert all(norm > 0 for norm in norms.values() if norm is not None)

    def test_run_equals_plain_torch_in_float64(self) -> None:
        recorder = MemoryRecorder()
        trainer = fine_tuning(recorder, "train.epochs=2", double=True)
        reference = build_model(trainer.spec, CPU, "eager")
        reference.load_state_dict(weights())
        for model in (trainer.model, reference):
            model.double()
        learning = [values for name, values in reference.named_parameters() if name not in FROZEN]
        adam = torch.optim.Adam(learning, lr=trainer.spec.train.lr, weight_decay=0.1)
        trainer.optimizer = type(trainer.optimizer)(trainer.model, trainer.spec.train, CPU)
        trainer.run()
        for epoch, row in enumerate(recorder.rows):
            adam.param_groups[0]["lr"] = row.lr
            reference.train().layers["bn0"].eval()
            for batch in trainer.loader.training_batches(SPLIT_A.train, epoch):
                rates = reference(batch.x, 2, keys=batch.keys)
                adam.zero_grad()
                (rates - batch.targets.double()).square().mean().backward()
                adam.step()
        for name, values in reference.state_dict().items():
            torch.testing.assert_close(recorder.saved["last"]["model"][name], values, rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize("stop_after", [2, 5, 9])
    def test_run_interrupted_and_resumed_equals_uninterrupted(self, stop_after: int) -> None:
        uninterrupted, first = MemoryRecorder(), MemoryRecorder(stop_after)
        expected = fine_tuning(uninterrupted).run()
        with pytest.raises(Interrupted):
            fine_tuning(first).run()
        second = MemoryRecorder(saved=first.saved)
        again = tiny_trainer(second, fine_tuning(MemoryRecorder()).spec)  # without the weights it began with
        again.restore(first.saved["last"])
        outcome = again.run()
        assert same_weights(uninterrupted.saved["last"], second.saved["last"])
        assert [reproducible(row) for row in outcome.history] == [reproducible(row) for row in expected.history]

    @pytest.mark.parametrize("settings", [("train.memory=compact",), ("train.clip_norm=0.01",), ()])
    def test_steps_as_a_graph_and_compact_memory_give_the_same_bits(self, settings: tuple[str, ...]) -> None:
        one, other = MemoryRecorder(), MemoryRecorder()
        fine_tuning(one, *(text for text in settings if "memory" not in text)).run()
        fine_tuning(other, *settings, graph=True).run()
        assert same_weights(one.saved["last"], other.saved["last"])

    def test_pattern_without_a_parameter_is_refused(self) -> None:
        with pytest.raises(UsageError, match="'pool' selects no parameter"):
            tiny_trainer(MemoryRecorder(), tiny_spec("train.freeze=[pool]"))


def test_settings_that_are_no_patterns_or_digests_are_refused() -> None:
    wrong: list[Any] = ["train.weights=abc", "train.freeze=conv0", "train.freeze=[1]"]
    for setting in wrong:
        with pytest.raises(UsageError, match=r"train\.(weights|freeze)"):
            tiny_spec(setting)
