"""The steps of a QuantizeJob without the libraries that do the work: what is checked, kept, found again and told."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys

import pytest

from largeforge.api.finetunejobstatus import ArtifactRecord
from largeforge.api.quantize import QuantizeResult
from largeforge.api.quantizejobstatus import EvaluationRecord
from largeforge.api.run import AdapterSource
from largeforge.jobs import (
    container,
    prepared,
    quantize,
    quantizeautoawq,
    quantizecard,
    quantizeerrors,
    quantizememory,
    quantizemends,
    quantizemerge,
    quantizemethod,
    quantizepreflight,
    quantizescheme,
    quantizestep,
    quantizing,
    weights,
)
from largeforge.jobs.errors import (
    BaseInvalidError,
    DiskFullError,
    InvalidConfigError,
    OutOfMemoryError,
    RunError,
)
from largeforge.jobs.quantizescheme import Layer, Shape
from tests.unit.jobs import folders, quantizations

SMOL = Shape(
    parameters=134_515_008,
    layers=[Layer(f"model.layers.{i}.mlp.{name}", inputs, outputs) for i in range(30) for name, inputs, outputs in (
        ("q", 576, 576), ("k", 576, 192), ("v", 576, 192), ("o", 576, 576), ("gate", 576, 1536), ("up", 576, 1536),
        ("down", 1536, 576))],
    hidden=576,
    blocks=30,
)  # fmt: skip
EIGHT = Shape(
    parameters=8_030_000_000,
    layers=[Layer(f"model.layers.{i}.{name}", inputs, outputs) for i in range(32) for name, inputs, outputs in (
        ("q", 4096, 4096), ("k", 4096, 1024), ("v", 4096, 1024), ("o", 4096, 4096), ("gate", 4096, 14336),
        ("up", 4096, 14336), ("down", 14336, 4096))],
    hidden=4096,
    blocks=32,
)  # fmt: skip


def stored(tmp_path, config):
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json(by_alias=True))
    return path


def written(folder, **fields):
    """A result that an earlier attempt has left in *folder*."""
    folders.model(folder)
    digest = weights.digest(weights.safetensors_files(folder))
    artifact = ArtifactRecord(
        kind="Model", uri=f"pvc://out/small/{folder.name}", digest=digest, size_bytes=7, base="pvc://models/base"
    )
    result = QuantizeResult(outcome="Succeeded", stage="Quantize", run_digest="0" * 64, artifact=artifact, **fields)
    (folder / "result.json").write_text(result.model_dump_json(by_alias=True))
    return result


class TestGroups:
    def test_a_size_that_divides_every_layer_is_taken(self):
        quantizescheme.check_groups(quantizations.method(group_size=64), SMOL.layers)
        quantizescheme.check_groups(quantizations.method("W8A8"), SMOL.layers)

    def test_one_that_does_not_is_refused_with_the_one_that_does(self):
        with pytest.raises(quantizescheme.SchemeInvalidError) as caught:
            quantizescheme.check_groups(quantizations.method(group_size=128), SMOL.layers)
        said = str(caught.value)
        assert "AWQ with groupSize 128 does not fit the input size of 180 of 210 layers" in said
        assert said.endswith("and 177 more; set groupSize: 64")
        assert (caught.value.field, caught.value.exit_code) == ("spec.scheme.groupSize", 64)

    def test_where_none_does_the_layers_are_to_be_ignored(self):
        with pytest.raises(quantizescheme.SchemeInvalidError, match=r"odd \(100\); add these layers to scheme.ignore"):
            quantizescheme.check_groups(quantizations.method(group_size=32), [Layer("odd", 100, 8)])


class TestMemory:
    def need(self, name, shape=SMOL, tokens=8192):
        text = quantizememory.Text(tokens, 512, 49152)
        return quantizememory.need(quantizations.method(name), shape, text)

    def test_what_was_measured_is_within_the_estimate(self):
        # SmolLM2 on a CPU, 8 samples of 128 tokens: the peak of the process, as the benchmark measures it.
        few = quantizememory.Text(1024, 128, 49152)
        for name, peak in (("AWQ", 1.44e9), ("GPTQ", 1.49e9), ("W8A8", 1.31e9), ("FP8Dynamic", 1.27e9)):
            assert quantizememory.need(quantizations.method(name), SMOL, few).host == pytest.approx(peak, rel=0.15)

    def test_a_large_model_needs_more_than_its_weights(self):
        for name in ("AWQ", "GPTQ", "W8A8", "FP8Dynamic"):
            assert 2 * EIGHT.parameters < self.need(name, EIGHT).host < 3.5 * EIGHT.parameters * 2

    def test_more_text_needs_more_but_where_none_is_read(self):
        assert self.need("AWQ", tokens=80_000).host > self.need("AWQ").host
        assert self.need("GPTQ", tokens=80_000).host > self.need("GPTQ").host

    def test_a_limit_below_it_is_refused_with_the_arithmetic(self):
        settings = quantizations.method("GPTQ")
        with pytest.raises(quantizeerrors.TooLargeError) as caught:
            quantizememory.check(settings, self.need("GPTQ", EIGHT), host=16 << 30, device=None)
        assert "GPTQ needs about" in str(caught.value)
        assert "weights 16.1 GB" in str(caught.value)
        assert "the container may use 17.2 GB; raise spec.compute.resources.limits.memory" in str(caught.value)
        assert (caught.value.exit_code, caught.value.reason) == (64, "OutOfMemory")

    def test_a_gpu_that_is_too_small_is_refused(self):
        with pytest.raises(quantizeerrors.TooLargeError, match=r"of the GPU's memory, and 1.0 GB are free"):
            quantizememory.check(quantizations.method("GPTQ"), self.need("GPTQ", EIGHT), host=None, device=10**9)

    def test_without_a_limit_nothing_is_refused(self):
        quantizememory.check(quantizations.method("GPTQ"), self.need("GPTQ", EIGHT), host=None, device=None)

    def test_the_limit_is_that_of_the_control_group(self, tmp_path):
        assert container.memory_limit(tmp_path) is None
        (tmp_path / "memory").mkdir()
        (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
        assert container.memory_limit(tmp_path) is None
        (tmp_path / "memory.max").write_text("max\n")
        assert container.memory_limit(tmp_path) is None
        (tmp_path / "memory.max").write_text("2147483648\n")
        assert container.memory_limit(tmp_path) == 2 << 30


class TestPrepared:
    def test_tokens_are_read_back(self, tmp_path):
        windows, samples = [[1, 2], [3]], [[4, 5, 6]]
        prepared.write(tmp_path, windows=windows, samples=samples)
        assert prepared.read_windows(tmp_path, expected=prepared.digest(windows)) == windows
        assert prepared.read_samples(tmp_path, expected=prepared.digest(samples)) == samples
        assert prepared.is_whole(tmp_path, windows=prepared.digest(windows), samples=prepared.digest(samples))

    def test_what_was_changed_is_not_used(self, tmp_path):
        prepared.write(tmp_path, windows=[[1, 2]], samples=None)
        digest = prepared.digest([[1, 2]])
        assert not prepared.is_whole(tmp_path, windows=digest, samples="d")
        (tmp_path / "windows.json").write_text("[[1,3]]")
        with pytest.raises(prepared.PreparedLostError, match=r"windows\.json, which preflight wrote"):
            prepared.read_windows(tmp_path, expected=digest)
        assert not prepared.is_whole(tmp_path, windows=digest, samples=None)


class TestSource:
    def test_a_model_that_is_quantized_already_is_refused(self, tmp_path):
        config = quantizations.config(tmp_path)
        folders.model(tmp_path / "source", config={"model_type": "llama", "quantization_config": {"bits": 4}})
        with pytest.raises(BaseInvalidError, match="is quantized already; name the model that it was made from"):
            quantizepreflight.inspect(tmp_path / "source", config.source)

    def test_a_merge_that_changes_the_model_is_refused_and_a_rounding_is_said(self):
        adapter = AdapterSource(uri="pvc://models/a", field="spec.source.expertRef", path="/mnt/adapter")
        assert quantizemerge.judge(10.0, 10.05, adapter) == []
        assert (
            "merged, its perplexity is 10.2, and 10 as base plus adapter" in quantizemerge.judge(10.0, 10.2, adapter)[0]
        )
        for after in (11.0, 9.0, math.nan, math.inf):
            with pytest.raises(BaseInvalidError, match="does not survive the merge"):
                quantizemerge.judge(10.0, after, adapter)

    def test_a_merged_model_is_whole_when_its_record_fits_its_weights(self, tmp_path):
        folders.model(tmp_path / "merged")
        assert not quantizemerge.is_whole(tmp_path / "merged")
        digest = weights.digest(weights.safetensors_files(tmp_path / "merged"))
        (tmp_path / "merged" / "merged.json").write_text(json.dumps({"digest": digest}))
        assert quantizemerge.is_whole(tmp_path / "merged")
        (tmp_path / "merged" / "model.safetensors").write_bytes(folders.safetensors(b"\x01" * 8))
        assert not quantizemerge.is_whole(tmp_path / "merged")


class TestResult:
    def quantized(self, tmp_path):
        """A method that is to be done, and the folder that its result goes to."""
        samples = [[1, 2, 3]]
        prepared.write(tmp_path, windows=[[1, 2]], samples=samples)
        digest = prepared.digest(samples)
        config = quantizations.config(tmp_path, stage="Quantize", prepared_path=str(tmp_path), prepared_digest=digest)
        config = config.model_copy(update={"source": config.source.model_copy(update={"digest": "c" * 64})})
        name = quantizemethod.folder_of(config, config.methods[0])
        return config, tmp_path / "output" / name

    def test_a_method_whose_result_is_whole_is_not_worked_again(self, tmp_path):
        config, target = self.quantized(tmp_path)
        earlier = written(target, seconds=77)
        found = quantizemethod.run(config)
        assert (found.artifact, found.seconds, found.adopted) == (earlier.artifact, 77, True)
        assert found.run_digest == config.digest

    def test_one_whose_bytes_were_changed_is_put_aside_and_worked_again(self, tmp_path, monkeypatch):
        config, target = self.quantized(tmp_path)
        written(target)
        (target / "model.safetensors").write_bytes(folders.safetensors(b"\x01" * 8))
        monkeypatch.setattr(quantizemethod, "_work", lambda *_: "worked")
        assert quantizemethod.run(config) == "worked"
        assert [path.name for path in (tmp_path / "output").iterdir()] == [f".{target.name}.damaged"]

    def test_what_a_killed_attempt_left_is_removed(self, tmp_path, monkeypatch, capsys):
        config, target = self.quantized(tmp_path)
        (tmp_path / "output" / f".{target.name}.dead").mkdir()
        monkeypatch.setattr(quantizemethod, "_work", lambda *_: "worked")
        assert quantizemethod.run(config) == "worked"
        assert list((tmp_path / "output").iterdir()) == []
        assert "cleared" in capsys.readouterr().out

    def test_other_tokens_another_source_or_another_scheme_go_elsewhere(self, tmp_path):
        config, _ = self.quantized(tmp_path)
        source = config.source.model_copy(update={"digest": "d" * 64})
        method = config.methods[0].model_copy(update={"digest": "f" * 64})
        names = {
            quantizemethod.folder_of(one, one.methods[0])
            for one in (
                config,
                config.model_copy(update={"source": source}),
                config.model_copy(update={"prepared_digest": "9" * 64}),
                config.model_copy(update={"methods": [method]}),
            )
        }
        assert len(names) == 4

    def test_the_card_says_what_it_is_and_nothing_of_the_data(self, tmp_path):
        config, target = self.quantized(tmp_path)
        card = quantizecard.card(config, config.methods[0], written(target))
        assert "`pvc://models/base` with weights in 4 bits (AWQ), groups of 64, a zero point" in card
        assert "run 1 of the QuantizeJob `small`" in card


class TestAutoAWQ:
    def test_the_words_of_transformers_5_are_written_in_those_of_4(self):
        settings = {
            "dtype": "bfloat16",
            "rope_parameters": {"rope_theta": 1e5, "rope_type": "default"},
            "vocab_size": 8,
        }
        assert quantizeautoawq.for_transformers_4(settings) == {
            "torch_dtype": "bfloat16",
            "rope_theta": 1e5,
            "vocab_size": 8,
        }
        scaled = {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0}}
        assert quantizeautoawq.for_transformers_4(scaled) == {
            "rope_theta": 5e5,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
        }

    def test_what_is_written_in_the_old_words_already_stays(self):
        old = {"rope_theta": 1e4, "torch_dtype": "float16"}
        assert quantizeautoawq.for_transformers_4(old) == old

    def test_its_shape_is_read_from_the_configuration(self, tmp_path):
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
        found = quantizeautoawq.shape(folders.model(tmp_path / "m", config=sizes))
        assert (found.hidden, found.blocks, len(found.layers)) == (64, 3, 21)
        assert [layer.inputs for layer in found.per_block] == [64] * 6 + [128]

    def test_it_quantizes_every_layer_but_the_head(self):
        quantizescheme.check_library(quantizations.method(engine="AutoAWQ"))
        with pytest.raises(quantizescheme.SchemeInvalidError, match="AutoAWQ quantizes every layer but the head"):
            quantizescheme.check_library(quantizations.method(engine="AutoAWQ", ignore=["lm_head", "re:.*mlp.*"]))

    def test_an_image_without_the_library_is_named(self):
        with pytest.raises(InvalidConfigError, match="this image has no AutoAWQ; leave it to the chart"):
            quantizing.check_library(quantizations.method(engine="AutoAWQ"))

    def test_a_state_that_is_kept_is_a_copy_within_the_mend_alone(self):
        class Weight(list):
            def clone(self):
                return Weight(self)

        class Module:
            live = Weight([1, 2])

            def state_dict(self):
                return {"weight": self.live}

        module = Module()
        with quantizemends.copied_state(module):
            kept = module.state_dict()["weight"]
            module.live.append(3)
        assert kept == [1, 2]
        assert module.state_dict()["weight"] is module.live


class TestStep:
    def failing(self, monkeypatch, error):
        def run(_config):
            raise error

        monkeypatch.setattr(quantize, "run", run)

    def test_a_configuration_that_cannot_be_read_is_the_operators_fault_and_final(self, tmp_path):
        (tmp_path / "config.json").write_text('{"namespace": 7}')
        result, code = quantizestep.run(tmp_path / "config.json", quantize.step)
        assert (result.outcome, code, result.error.reason) == ("Failed", 64, "InvalidConfig")
        assert "image must be of one version" in result.error.message

    def test_a_failure_has_the_stage_the_digest_and_its_reason(self, tmp_path, monkeypatch):
        self.failing(monkeypatch, quantizescheme.SchemeInvalidError("no", field="spec.scheme.groupSize"))
        config = stored(tmp_path, quantizations.config(tmp_path))
        result, code = quantizestep.run(config, quantize.step)
        assert (result.stage, result.run_digest, code) == ("Preflight", "ab" * 32, 64)
        assert (result.error.reason, result.error.field) == ("SchemeInvalid", "spec.scheme.groupSize")

    def test_what_a_library_raises_is_told_without_the_data_in_its_frames(self, tmp_path, monkeypatch, capsys):
        self.failing(monkeypatch, ValueError("shapes differ\nsecond line"))
        result, code = quantizestep.run(stored(tmp_path, quantizations.config(tmp_path)), quantize.step)
        assert (code, result.error.reason) == (1, "QuantizeFailed")
        assert result.error.message == "ValueError: shapes differ"
        assert "shapes differ" not in capsys.readouterr().err

    def test_a_stop_is_no_failure(self, tmp_path, monkeypatch):
        self.failing(monkeypatch, quantizestep.Stopped())
        result, code = quantizestep.run(stored(tmp_path, quantizations.config(tmp_path)), quantize.step)
        assert (code, result.error.reason) == (75, "Disrupted")

    def test_sigterm_is_heard_by_a_process_without_a_default_action(self, tmp_path):
        program = (
            "import sys, time\nfrom largeforge.jobs import quantize\n"
            "def run(config):\n    print('waiting', flush=True)\n    time.sleep(60)\n"
            "quantize.run = run\nsys.exit(quantize.main(sys.argv[1:]))"
        )
        message = tmp_path / "message"
        config = stored(tmp_path, quantizations.config(tmp_path))
        argv = [sys.executable, "-c", program, str(config), "--termination-log", str(message)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=os.environ) as child:
            assert child.stdout.readline() == "waiting\n"
            child.send_signal(signal.SIGTERM)
            assert child.wait(timeout=60) == 75
        assert json.loads(message.read_text())["error"]["reason"] == "Disrupted"

    def test_the_last_line_says_how_it_ended(self, tmp_path):
        line = quantizestep.ending_line
        whole = written(tmp_path / "a")
        assert line(whole) == "succeeded: pvc://out/small/a, 0.0 MB"
        assert line(whole.model_copy(update={"adopted": True})).endswith("(an earlier attempt had written it)")
        evaluation = EvaluationRecord(perplexity="12.5", tokens=100, windows=3)
        measured = QuantizeResult(outcome="Succeeded", stage="Evaluate", evaluation=evaluation)
        assert line(measured) == "succeeded: perplexity 12.5 over 100 tokens in 3 windows"
        failure = QuantizeResult(outcome="Failed", stage="Quantize", error=RunError("why").detail())
        assert line(failure) == "failed: TrainingFailed: why"


@pytest.mark.parametrize(
    ("error", "kind", "remedy"),
    [
        (MemoryError(), OutOfMemoryError, quantizeerrors.MEMORY_REMEDY),
        (RuntimeError("DefaultCPUAllocator: can't allocate"), OutOfMemoryError, quantizeerrors.MEMORY_REMEDY),
        (OSError(28, "No space left on device"), DiskFullError, quantizeerrors.DISK_REMEDY),
    ],
)
def test_memory_and_disk_have_this_jobs_remedies(error, kind, remedy):
    known = quantizeerrors.from_exception(error)
    assert isinstance(known, kind)
    assert str(known).endswith(remedy)


def test_an_error_of_ours_stays_what_it_is():
    error = quantizeerrors.EvaluationError("the engine answered 400")
    assert quantizeerrors.from_exception(error) is error
