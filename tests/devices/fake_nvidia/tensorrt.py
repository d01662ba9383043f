"""Stands in for TensorRT: the same names, with ONNX Runtime on the processor behind them."""

import ctypes
import enum
import json

import numpy as np
import onnxruntime

__version__ = "10.9.0"
BUILT = []


class TensorIOMode(enum.Enum):
    INPUT, OUTPUT = 1, 2


class BuilderFlag(enum.Enum):
    TF32 = 1


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR, ERROR, WARNING = 0, 1, 2


def nptype(dtype):
    return np.dtype(dtype)


def _numpy(kind):
    inner = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(inner, inner)


def _session(content):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class Tensor:
    def __init__(self, item):
        self.name, self.dtype = item.name, _numpy(item.type)
        self.shape = [size if isinstance(size, int) else -1 for size in item.shape]


class Network:
    def __init__(self, flags):
        if flags != 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED:
            raise AssertionError("the network is not strongly typed")
        self.inputs = []
        self.content = b""

    @property
    def num_inputs(self):
        return len(self.inputs)

    def get_input(self, index):
        return self.inputs[index]


class ParserError:
    def __init__(self, text):
        self._text = text

    def desc(self):
        return self._text


class OnnxParser:
    def __init__(self, network, log):
        self._network, self._errors = network, []

    def parse(self, content, path=None):
        try:
            items = _session(content).get_inputs()
        except Exception as error:
            self._errors.append(ParserError(str(error)))
            return False
        self._network.inputs = [Tensor(item) for item in items]
        self._network.content = content
        return True

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]


class TimingCache:
    def __init__(self, data):
        self.data = data

    def serialize(self):
        return self.data + b"+"


class Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, least, best, largest):
        self.shapes[name] = (list(least), list(largest))


class Config:
    def __init__(self):
        self.flags = set(BuilderFlag)
        self.profile = Profile()
        self.cache = None

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def add_optimization_profile(self, profile):
        self.profile = profile

    def create_timing_cache(self, data):
        return TimingCache(data)

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache
        return not cache.data.startswith(b"another GPU")

    def get_timing_cache(self):
        return self.cache


class Builder:
    def __init__(self, log):
        self._log = log

    def create_network(self, flags=0):
        return Network(flags)

    def create_builder_config(self):
        return Config()

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        missing = [
            tensor.name
            for tensor in network.inputs
            if -1 in tensor.shape and tensor.name not in config.profile.shapes
        ]
        if missing or config.flags:
            self._log.log(ILogger.Severity.ERROR, f"no profile for {missing}")
            return None
        BUILT.append(config.profile.shapes)
        return json.dumps(config.profile.shapes).encode() + b"\n" + network.content


class Context:
    def __init__(self, session, shapes):
        self._session, self._shapes = session, shapes
        self._given, self._addresses = {}, {}
        self._names = [item.name for item in session.get_outputs()]
        self._types = {item.name: _numpy(item.type) for item in session.get_inputs()}

    def set_input_shape(self, name, shape):
        if name in self._shapes:
            least, largest = self._shapes[name]
            if not least[0] <= shape[0] <= largest[0]:
                raise AssertionError(f"{shape} is outside of {self._shapes[name]}")
        self._given[name] = shape
        return True

    def get_tensor_shape(self, name):
        if name in self._given:
            return self._given[name]
        zeros = {each: np.zeros(self._given[each], self._types[each]) for each in self._given}
        return self._session.run([name], zeros)[0].shape

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        feeds = {
            name: _at(self._addresses[name], shape, self._types[name])
            for name, shape in self._given.items()
        }
        for name, output in zip(self._names, self._session.run(None, feeds), strict=True):
            _at(self._addresses[name], output.shape, output.dtype)[...] = output
        return True


def _at(address, shape, dtype):
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = (ctypes.c_byte * n_bytes).from_address(address)
    return np.frombuffer(memoryview(raw), dtype).reshape(shape)


class Engine:
    def __init__(self, data):
        written, content = data.split(b"\n", 1)
        self._shapes, self._session = json.loads(written), _session(content)
        ins, outs = self._session.get_inputs(), self._session.get_outputs()
        self._modes = dict.fromkeys((item.name for item in ins), TensorIOMode.INPUT)
        self._modes |= dict.fromkeys((item.name for item in outs), TensorIOMode.OUTPUT)
        self._types = {item.name: _numpy(item.type) for item in (*ins, *outs)}
        self.num_io_tensors = len(self._modes)

    def get_tensor_name(self, index):
        return list(self._modes)[index]

    def get_tensor_mode(self, name):
        return self._modes[name]

    def get_tensor_dtype(self, name):
        return self._types[name]

    def create_execution_context(self):
        return Context(self._session, self._shapes)


class Runtime:
    def __init__(self, log):
        self._log = log

    def deserialize_cuda_engine(self, data):
        if not data.startswith(b"{"):
            self._log.log(ILogger.Severity.ERROR, "the plan file is damaged")
            return None
        return Engine(data)
