"""What an import in a pickle can do: a list of what is known to be harmless, and one of what can run anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Harm", "harm_of"]

Harm = Literal["harmless", "unknown", "dangerous"]

_NUMBERS: Final = (
    "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 intc intp float16 float32 float64 longdouble complex64 "
    "complex128 str_ bytes_ datetime64 timedelta64"
)
_STORAGES: Final = " ".join(
    f"{kind}Storage"
    for kind in ("Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "Float", "Double", "BFloat16", "ComplexFloat",
                 "ComplexDouble", "QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4", "Untyped")
)  # fmt: skip
_TORCH_TYPES: Final = (
    "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex32 complex64 complex128 qint8 quint8 "
    "qint32 quint4x2 float8_e4m3fn float8_e5m2 half float double short int long"
)
_HARMLESS_TEXT: Final[Mapping[str, str]] = {
    "builtins": "bool bytearray bytes complex dict Ellipsis float frozenset int list NotImplemented object range set "
    "slice str tuple",
    "collections": "ChainMap Counter OrderedDict defaultdict deque",
    "copyreg": "_reconstructor",
    "_codecs": "encode",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "uuid": "UUID",
    "joblib.numpy_pickle": "NumpyArrayWrapper",
    "numpy": f"dtype ndarray matrix recarray {_NUMBERS}",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "numpy.ma.core": "MaskedArray _mareconstruct",
    "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64 PCG64DXSM",
    "scipy.sparse._csr": "csr_array csr_matrix",
    "scipy.sparse._csc": "csc_array csc_matrix",
    "torch": f"Size Tensor device dtype {_STORAGES} {_TORCH_TYPES}",
    "torch.storage": "TypedStorage UntypedStorage",
    "torch.nn.parameter": "Parameter",
    "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter "
    "_rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor _rebuild_meta_tensor_no_storage "
    "_rebuild_wrapper_subclass",
    "torch.serialization": "_get_layout",
}
_HARMLESS: Final = {module: frozenset(names.split()) for module, names in _HARMLESS_TEXT.items()}

# With everything below them. Not each of them is bad by itself; each has something that leads to anywhere.
_DANGEROUS_MODULES_TEXT: Final = """
    _aix_support _ctypes _frozen_importlib _frozen_importlib_external _imp _io _operator _osx_support _pickle
    _posixsubprocess _pyio _pyrepl _socket _testcapi _thread aiohttp antigravity asyncio bdb cProfile cffi cloudpickle
    code codeop commands compileall concurrent ctypes dbm dill distutils doctest ensurepip fileinput ftplib functools gc
    glob http httplib httpx idlelib imaplib imp importlib inspect io jsonpickle lib2to3 linecache logging marshal mmap
    modulefinder multiprocessing nt numba operator os pandas.io pdb pickle pip pkg_resources pkgutil platform poplib
    popen2 posix profile pstats pty py_compile pydoc requests resource rlcompleter runpy setuptools shelve shutil signal
    site smtplib socket socketserver sqlite3 ssl subprocess sys sysconfig tarfile telnetlib tempfile test threading
    timeit tkinter trace tracemalloc turtle types typing unittest urllib urllib2 urllib3 venv webbrowser wsgiref xmlrpc
    zipapp zipfile zipimport
    numpy.ctypeslib numpy.distutils numpy.f2py numpy.lib numpy.testing
    torch._C torch._dynamo torch._inductor torch.cuda torch.distributed torch.fx torch.hub torch.jit torch.package
    torch.utils transformers.dynamic_module_utils
"""
_DANGEROUS_MODULES: Final = frozenset(_DANGEROUS_MODULES_TEXT.split())
_DANGEROUS_TEXT: Final[Mapping[str, str]] = {
    "builtins": "__build_class__ __import__ apply breakpoint compile delattr dir eval exec execfile exit file filter "
    "getattr globals hasattr help input locals map memoryview open quit reload setattr super type vars",
    "joblib": "load",
    "joblib.numpy_pickle": "load read_array NumpyUnpickler",
    "numpy": "load fromfile memmap save savez loadtxt genfromtxt savetxt",
    "pandas": "read_pickle eval read_csv read_sql read_html",
    "torch": "load save compile",
    "torch.serialization": "load save",
    "torch.storage": "_load_from_bytes",
}
_DANGEROUS: Final = {module: frozenset(names.split()) for module, names in _DANGEROUS_TEXT.items()}
_ALONE: Final = frozenset(module for module in _DANGEROUS_MODULES if "." not in module)


def harm_of(module: str, name: str) -> Harm:
    """Tell what importing and calling this can do, as far as these lists know.

    Example:
        >>> harm_of("collections", "OrderedDict"), harm_of("posix", "system"), harm_of("sklearn.svm", "SVC")
        ('harmless', 'dangerous', 'unknown')
    """
    if name in _HARMLESS.get(module, frozenset()):
        return "harmless"
    parts = module.split(".")
    above = {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
    if "?" in (module, name) or above & _DANGEROUS_MODULES or name in _DANGEROUS.get(module, frozenset()):
        return "dangerous"
    # `collections._sys.exit`, and modules that other modules have imported.
    if any(part.lstrip("_") in _ALONE for part in name.split(".")) or ("." in name and "__" in name):
        return "dangerous"
    return "unknown"
