"""Files under a URI: the local disk and object storage through one small surface.

A URI is a local path or anything that `pyarrow.fs.FileSystem.from_uri` opens: `file://`, `s3://`, `gs://`, `hdfs://`.
Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and their like), never from the URI, because
URIs are printed and stored.

Source: https://arrow.apache.org/docs/python/filesystems.html
"""

from __future__ import annotations

import functools
import os
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from data_loaders.errors import StorageError


@dataclass(frozen=True)
class Location:
    """A file or a folder: an Arrow filesystem, the path on it, and the URI to show to people."""

    filesystem: pafs.FileSystem
    path: str
    uri: str

    def child(self, name: str) -> Location:
        """The file or folder `name` (may hold `/`) below this folder; any `?query` of the URI is kept."""
        base, mark, query = self.uri.partition("?")
        return Location(
            filesystem=self.filesystem,
            path=f"{self.path.rstrip('/')}/{name}",
            uri=f"{base.rstrip('/')}/{name}{mark}{query}",
        )

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]

    def exists(self) -> bool:
        return self._info().type != pafs.FileType.NotFound

    def children(self) -> list[Location]:
        """Files and folders directly below, by name; none if the folder does not exist."""
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        try:
            infos = self.filesystem.get_file_info(selector)
        except OSError as error:
            raise StorageError(f"{self.uri}: cannot be listed: {first_line(error)}") from error
        return [self.child(name) for name in sorted(info.base_name for info in infos)]

    def num_bytes(self) -> int:
        """Size of this file.

        Raises:
            StorageError: there is no such file.
        """
        info = self._info()
        if info.type != pafs.FileType.File:
            raise StorageError(f"{self.uri}: no such file")
        return int(info.size)

    def read_text(self) -> str:
        """The whole file, decoded from UTF-8.

        Raises:
            StorageError: there is no such file, or it cannot be read.
        """
        try:
            with self.filesystem.open_input_stream(self.path) as stream:
                return bytes(stream.read()).decode()
        except FileNotFoundError as error:
            raise StorageError(f"{self.uri}: no such file") from error
        except OSError as error:
            raise StorageError(f"{self.uri}: cannot be read: {first_line(error)}") from error

    def write_text(self, text: str) -> None:
        """Writes the whole file at once: a reader sees the old text or the new one, never a part.

        Raises:
            StorageError: it cannot be written.
        """
        # An object store publishes on close; a local file needs a rename for the same promise.
        is_local = isinstance(self.filesystem, pafs.LocalFileSystem)
        target = f"{self.path}.{uuid.uuid4().hex}.tmp" if is_local else self.path
        try:
            self.parent_folder()
            with self.filesystem.open_output_stream(target) as stream:
                stream.write(text.encode())
            if is_local:
                self.filesystem.move(target, self.path)
        except OSError as error:
            raise StorageError(f"{self.uri}: cannot be written: {first_line(error)}") from error

    def parent_folder(self) -> None:
        """Makes the folder that this file lies in, where the filesystem has folders."""
        if isinstance(self.filesystem, pafs.LocalFileSystem):
            self.filesystem.create_dir(self.path.rpartition("/")[0], recursive=True)

    def delete(self) -> None:
        """Deletes this file, or this folder with all below it; nothing if there is none."""
        kind = self._info().type
        if kind == pafs.FileType.Directory:
            self.filesystem.delete_dir(self.path)
        elif kind == pafs.FileType.File:
            self.filesystem.delete_file(self.path)

    def _info(self) -> pafs.FileInfo:
        try:
            return self.filesystem.get_file_info(self.path)
        except OSError as error:
            raise StorageError(f"{self.uri}: cannot be reached: {first_line(error)}") from error


def locate(uri: str) -> Location:
    """The location that a URI or a local path names; nothing is read yet.

    Raises:
        StorageError: the scheme is unknown, or the URI carries credentials.
    """
    parts = urlsplit(uri)
    if "://" not in uri:
        path = os.path.abspath(os.path.expanduser(uri))
        return Location(filesystem=_filesystem("file", ""), path=path, uri=path)
    if "@" in parts.netloc:
        shown = uri.replace(parts.netloc.rpartition("@")[0] + "@", "")
        raise StorageError(f"{shown}: credentials do not belong in a URI; set them in the environment")
    try:
        # The path depends on the URI, the (costly) filesystem only on its scheme, host and query.
        _, path = pafs.FileSystem.from_uri(uri) if parts.scheme == "file" else (None, "")
        filesystem = _filesystem(parts.scheme, f"{parts.netloc}?{parts.query}")
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise StorageError(f"{uri}: cannot be opened: {first_line(error)}") from error
    if parts.scheme != "file":
        path = f"{parts.netloc}{parts.path}" if parts.scheme in ("s3", "gs", "gcs") else parts.path
    return Location(filesystem=filesystem, path=path.rstrip("/"), uri=uri)


@functools.cache
def _filesystem(scheme: str, authority_and_query: str) -> pafs.FileSystem:
    if scheme == "file":
        return pafs.LocalFileSystem()
    authority, _, query = authority_and_query.partition("?")
    return pafs.FileSystem.from_uri(f"{scheme}://{authority}/{'?' if query else ''}{query}")[0]


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a message of one line."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(" :.")
