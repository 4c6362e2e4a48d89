"""PyTorch Distributed Checkpoint on any URI.

Source: https://docs.pytorch.org/docs/stable/distributed.checkpoint.html
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from collections.abc import Iterator
from typing import Any, ClassVar

from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.filesystem import FileSystemBase
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    Metadata,
    StorageMeta,
    TensorStorageMetadata,
)

from data_loaders.storage import Location

_READ_AHEAD_BYTES = 1 << 20


class LocationFileSystem(FileSystemBase):
    """What DCP asks of a filesystem, its "paths" being locations."""

    @contextlib.contextmanager
    def create_stream(self, path: Any, mode: str) -> Iterator[Any]:
        if mode == "rb":
            with path.filesystem.open_input_file(path.path) as file:
                yield io.BufferedReader(_RawFile(file), _READ_AHEAD_BYTES)
            return
        file = path.filesystem.open_output_stream(path.path)
        try:
            yield file
        except BaseException:
            # closing publishes what was written so far as if it were whole: take it away again
            file.close()
            path.delete()
            raise
        file.close()

    def concat_path(self, path: Any, suffix: str) -> Any:
        return path.child(suffix)

    def init_path(self, path: Any) -> Any:
        return path

    def rename(self, path: Any, new_path: Any) -> None:
        path.filesystem.move(path.path, new_path.path)

    def mkdir(self, path: Any) -> None:
        path.child("any").parent_folder()

    def exists(self, path: Any) -> bool:
        return bool(path.exists())

    def rm_file(self, path: Any) -> None:
        path.delete()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike) -> bool:
        return True


class LocationWriter(FileSystemWriter):
    """Writes one file per rank below a location."""

    def __init__(self, location: Location) -> None:
        # object stores have no fsync; a local file's rename of the manifest comes after the close
        super().__init__("", sync_files=False)
        self.fs = LocationFileSystem()  # type: ignore[assignment]
        self.path = location  # type: ignore[assignment]

    def storage_meta(self) -> StorageMeta | None:
        return StorageMeta(save_id=self.save_id)  # goes into the index: no Location in it, no URI

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike) -> bool:
        return True


class LocationReader(FileSystemReader):
    """Reads what `LocationWriter` wrote."""

    def __init__(self, location: Location) -> None:
        super().__init__("")
        self.fs = LocationFileSystem()  # type: ignore[assignment]
        self.path = location  # type: ignore[assignment]

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The checkpoint's index, which DCP pickles; only the classes that an index is made of are
        let in.

        Raises:
            pickle.UnpicklingError: it holds anything else.
        """
        with self.fs.create_stream(self.fs.concat_path(self.path, ".metadata"), "rb") as stream:
            metadata: Metadata = _IndexUnpickler(stream).load()
        for key, item in metadata.state_dict_metadata.items():
            if not isinstance(item, TensorStorageMetadata):  # DCP would unpickle its bytes
                raise pickle.UnpicklingError(f"{key} is no tensor; a checkpoint holds only tensors")
        if metadata.storage_meta is not None:
            metadata.storage_meta.load_id = self.load_id
        return metadata

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike) -> bool:
        return True


class _IndexUnpickler(pickle.Unpickler):
    _CLASSES: ClassVar[dict[str, set[str]]] = {
        "torch": {"Size", "float16", "float32", "float64", "bfloat16", "int32", "int64", "uint8"},
        "torch.serialization": {"_get_layout"},
        "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
        "torch.distributed.checkpoint.metadata": {
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        },
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _memory_format  # how Python before 3.11.4 pickles the one enum of an index
        if name in self._CLASSES.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint's index")


def _memory_format(kind: type, name: str) -> Any:
    if kind is not _MEM_FORMAT_ENCODING:
        raise pickle.UnpicklingError(f"{kind}.{name} has no place in a checkpoint's index")
    return _MEM_FORMAT_ENCODING[name]


class _RawFile(io.RawIOBase):
    """Arrow's file as Python's raw file, so that it can be buffered."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        return int(self._file.readinto(buffer))
