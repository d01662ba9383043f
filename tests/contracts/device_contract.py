"""What every device owes: subclass `DeviceContract` and give it a ``device`` fixture."""

import dataclasses

import numpy as np
import pytest

from hwsearch.devices import Latency, MeasureSettings, load_device
from hwsearch.devices.base import Profile
from hwsearch.devices.spec import file_precision
from hwsearch.errors import DeviceError
from hwsearch.models.onnx_file import PRECISIONS
from tests.devices import tiny_models

QUICK = MeasureSettings(
    half_width=0.5,
    seconds_per_model=0.1,
    first_look=5,
    burst_s=0.002,
    warmup_floor_s=0.0,
    warmup_ceiling_s=0.1,
)


class DeviceContract:
    @pytest.fixture(scope="class")
    @classmethod
    def files(cls, device, tmp_path_factory):
        folder, own = tmp_path_factory.mktemp("models"), file_precision(device.precision)
        return {
            "second": tiny_models.conv(folder / "second.onnx", channels=16, precision=own),
            "broken": tiny_models.garbage(folder / "broken.onnx"),
            "missing": folder / "missing.onnx",
            "first": tiny_models.conv(folder / "first.onnx", channels=4, precision=own),
            "tokens": tiny_models.tokens(folder / "tokens.onnx", precision=own),
        }

    @pytest.fixture(scope="class")
    @classmethod
    def foreign(cls, device, tmp_path_factory):
        folder = tmp_path_factory.mktemp("foreign")
        own = file_precision(device.precision)
        others = [each for each in ("fp32", "fp16", "int8") if each != own]
        return {each: tiny_models.conv(folder / f"{each}.onnx", precision=each) for each in others}

    @pytest.fixture(scope="class")
    @classmethod
    def good(cls, files):
        return {name: files[name] for name in ("second", "first", "tokens")}

    @pytest.fixture(scope="class")
    @classmethod
    def told(cls):
        """Calls of progress while the results are measured."""
        return []

    @pytest.fixture(scope="class")
    @classmethod
    def all_results(cls, device, files, foreign, told):
        models = {**files, **foreign}
        progress = lambda *args: told.append(args)  # noqa: E731
        return device.measure(models, seed=3, settings=QUICK, progress=progress)

    @pytest.fixture(scope="class")
    @classmethod
    def results(cls, all_results, files):
        return {name: all_results[name] for name in files}

    def test_is_written_down_so_that_it_can_be_loaded_again(self, device):
        assert load_device(device) is device
        assert device.spec.split(":")[0] in device.slug
        assert not set(device.slug) & set(':=,/\\ "')

    def test_fingerprint_is_constant_and_plain(self, device):
        fingerprint = device.fingerprint()
        assert fingerprint == device.fingerprint()
        assert {"cpu", "runtime", "batch", "precision"} <= set(fingerprint)
        assert all(isinstance(value, (str, int)) for value in fingerprint.values())

    def test_precision_is_the_devices(self, device):
        assert file_precision(device.precision) in PRECISIONS
        assert device.fingerprint()["precision"] == device.precision

    def test_files_of_another_precision_are_refused(self, device, foreign, all_results):
        for precision, path in foreign.items():
            assert f"is {precision}" in str(all_results[precision])
            wanted = f"takes {file_precision(device.precision)}"
            assert wanted in str(all_results[precision])
            with pytest.raises(DeviceError, match=f"is {precision}"):
                list(device.run(path, []))

    def test_profiles_say_where_the_time_goes(self, device, files, foreign, good):
        if not hasattr(device, "profile"):
            return
        profiles = device.profile({**files, **foreign}, runs=3)
        assert list(profiles) == [*files, *foreign]
        for name, profile in profiles.items():
            if name not in good:
                assert isinstance(profile, DeviceError)
                continue
            assert isinstance(profile, Profile)
            assert 0 < profile.total_ms < np.inf
            assert profile.nodes_ms
            assert all(0 <= spent_ms < np.inf for spent_ms in profile.nodes_ms.values())
        assert device.profile({}) == {}

    def test_transfers_are_told_apart_or_there_are_none(self, results, good):
        for name in good:
            latency = results[name]
            told = (latency.device_ms, latency.end_to_end_ms, latency.transfers)
            if latency.transfers is None:
                assert told == (None, None, None)
            else:
                objective = told[["excluded", "included"].index(latency.transfers)]
                assert objective == pytest.approx(latency.latency_ms)

    def test_every_model_gets_an_answer_in_the_order_given(self, all_results, files, foreign):
        assert list(all_results) == [*files, *foreign]

    def test_a_model_that_is_none_fails_alone_and_with_a_reason(self, results, good):
        failed = {name for name, result in results.items() if isinstance(result, DeviceError)}
        assert failed == set(results) - set(good)
        assert all(str(results[name]).strip() for name in failed)

    def test_latencies_are_finite_positive_and_ordered(self, results, good):
        for name in good:
            latency = results[name]
            assert isinstance(latency, Latency)
            for field in dataclasses.fields(latency):
                value = getattr(latency, field.name)
                if isinstance(value, float) and field.name not in ("cv", "waited", "cost_s"):
                    assert np.isfinite(value), field.name
                    assert value > 0, field.name
            assert latency.low_ms <= latency.latency_ms <= latency.high_ms
            assert latency.ratio_low <= latency.ratio <= latency.ratio_high
            assert latency.baseline_low_ms <= latency.baseline_ms <= latency.baseline_high_ms
            assert latency.latency_ms == pytest.approx(latency.ratio * latency.baseline_ms)
            assert latency.cv >= 0
            assert latency.cost_s >= 0

    def test_raw_numbers_are_kept(self, results, good):
        for name in good:
            latency = results[name]
            assert latency.ratios.shape == (latency.rounds,)
            assert latency.times_ms.shape[0] == latency.rounds
            assert latency.times_ms.size == latency.runs
            assert np.all(latency.times_ms > 0)
            counted = slice(None) if latency.counted is None else latency.counted
            middle = float(np.exp(np.median(np.log(latency.ratios[counted]))))
            assert latency.ratio == pytest.approx(middle)
            assert 0 < latency.p50_ms <= latency.p90_ms <= latency.p99_ms
            assert 0 < latency.undisturbed <= 1

    def test_progress_is_told(self, results, told):
        assert told
        assert all(rounds > 0 for rounds, _ in told)

    def test_no_model_no_answer(self, device):
        assert device.measure({}, seed=0, settings=QUICK) == {}

    def test_outputs_come_batch_by_batch(self, device, good):
        taken = []

        def batches():
            for size in (1, 3, 2):
                taken.append(size)
                yield {"image": np.full((size, 3, 8, 8), size, np.float32)}

        outputs = device.run(good["first"], batches())
        for size in (1, 3, 2):
            (scores,) = next(outputs)
            assert scores.shape == (size, 4, 1, 1)
            assert taken[-1] == size
        assert next(outputs, None) is None

    def test_two_models_run_in_turns(self, device, good):
        image = {"image": np.ones((2, 3, 8, 8), np.float32)}
        ids = {"ids": np.zeros((2, 5), np.int64)}
        pairs = zip(
            device.run(good["first"], [image] * 2),
            device.run(good["tokens"], [ids] * 2),
            strict=True,
        )
        assert [(a[0].shape, b[0].shape) for a, b in pairs] == [((2, 4, 1, 1), (2, 4))] * 2

    def test_running_a_bad_model_or_batch_says_why(self, device, files, good):
        with pytest.raises(DeviceError, match=r"."):
            list(device.run(files["broken"], []))
        with pytest.raises(DeviceError, match="image"):
            list(device.run(good["first"], [{"image": np.ones((1, 3, 8, 8), np.float64)}]))
        with pytest.raises(DeviceError, match="picture"):
            list(device.run(good["first"], [{"picture": np.ones((1, 3, 8, 8), np.float32)}]))
        with pytest.raises(DeviceError, match="image"):
            list(device.run(good["first"], [{}]))
        (outputs,) = device.run(good["first"], [{"image": np.ones((1, 3, 8, 8), np.float32)}])
        assert outputs[0].shape == (1, 4, 1, 1)

    def test_it_can_be_used_after_closing(self, device, good):
        device.close()
        device.close()
        (outputs,) = device.run(good["tokens"], [{"ids": np.zeros((1, 5), np.int64)}])
        assert outputs[0].shape == (1, 4)
